"""Garbage text layers are told from text in any language."""

import random
import string

import pytest

from rag.text_quality import bad_letter_share, judge, language_of, latin_cost

GOOD = {
    "en": "The committee reviewed the quarterly figures and found that revenue from services had "
    "grown faster than expected, while costs for materials were lower than in the year before.",
    "de": "Der Ausschuss hat die Zahlen des Quartals geprüft und festgestellt, dass die Umsätze "
    "mit Dienstleistungen schneller gewachsen sind als erwartet und die Kosten gesunken sind.",
    "fr": "Le comité a examiné les chiffres du trimestre et constaté que les revenus des services "
    "avaient augmenté plus vite que prévu, alors que les coûts étaient dans les limites.",
    "es": "El comité revisó las cifras del trimestre y encontró que los ingresos por servicios "
    "habían crecido más rápido de lo esperado para una empresa como las del sector.",
    "ja": "委員会は四半期の数字を確認し、サービスの売上が予想よりも速く伸びたことを確かめました。"
    "一方で、材料の費用は前の年より低くなっています。",
    "zh": "委员会审查了季度数据，发现服务收入的增长速度快于预期，"
    "而材料成本低于去年同期水平，因此利润有所提高。报告还指出市场前景良好。",
    "ko": "위원회는 분기 실적을 검토하고 서비스 매출이 예상보다 빠르게 증가했으며 "
    "재료비는 지난해보다 낮았다는 것을 확인했다.",
    "ru": "Комитет рассмотрел показатели за квартал и установил, что выручка от услуг росла "
    "быстрее, чем ожидалось.",
}
ALSO_GOOD = {
    "Polish": "Komitet przeanalizował wyniki kwartału i stwierdził, że przychody z usług rosły "
    "szybciej niż oczekiwano, podczas gdy koszty materiałów były niższe niż rok wcześniej.",
    "Finnish": "Komitea tarkasteli vuosineljänneksen lukuja ja totesi, että palvelujen tuotot "
    "olivat kasvaneet odotettua nopeammin ja materiaalien kustannukset olivat pienemmät.",
    "Vietnamese": "Ủy ban đã xem xét các số liệu của quý và nhận thấy doanh thu từ dịch vụ tăng "
    "nhanh hơn dự kiến trong khi chi phí vật liệu thấp hơn năm trước.",
    "Arabic": "راجعت اللجنة أرقام الربع ووجدت أن إيرادات الخدمات نمت بأسرع من المتوقع",
    "Hebrew": "הוועדה בחנה את נתוני הרבעון ומצאה שההכנסות משירותים צמחו מהר מהצפוי",
    "Hindi": "समिति ने तिमाही के आंकड़ों की समीक्षा की और पाया कि सेवाओं से राजस्व बढ़ा",
    "Greek": "Η επιτροπή εξέτασε τα στοιχεία του τριμήνου και διαπίστωσε ότι τα έσοδα αυξήθηκαν",
    "Traditional Chinese": "委員會審查了季度數據，發現服務收入的增長速度快於預期，"
    "而材料成本低於去年同期水準。",
    "code": "def read_pages(path, size):\n    for number in range(1, n_pages + 1):\n"
    "        yield document.read(number, size)\nprint(sha256(path.read_bytes()).hexdigest())",
    "numbers": "2021 2022 2023\n1,204.5 1,310.0 1,402.7\n(12.4) (9.8) (10.1)\n38 % 41 % 44 %",
    "formula": "∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−f(a)|<ε, where α ≤ β and Δx → 0 for λ in Ω",
    "Japanese with Latin": "PDFファイルをPythonのAPIで読み、GPUのVRAMに載せるとCPUより10倍速い。",
    "repeated kanji": "佐々木 太郎\n人々の暮らし\n様々な取り組みについて\n〆切は年々早まる",
    "units beside kanji": "β版\nα線とβ線の測定\n牛乳 500mℓ\n𝑥の値\n抵抗は5kΩです",
    "rare name": "渡邉さんと髙橋さんは、𠮷野家で会議をしました。議題は予算と計画でした。",
}


@pytest.mark.parametrize("text", [*GOOD.values(), *ALSO_GOOD.values()],
                         ids=[*GOOD, *ALSO_GOOD])  # fmt: skip
def test_text_of_any_language_is_good(text):
    health = judge(text)
    assert (health.state, health.bad_share) == ("good", 0.0)
    assert health.text == text


def substituted(text):
    letters = list(string.ascii_lowercase)
    random.Random(1).shuffle(letters)
    table = str.maketrans(
        string.ascii_lowercase + string.ascii_uppercase,
        "".join(letters) + "".join(letters).upper(),
    )
    return text.translate(table)


def glyph_numbers(text):
    """Glyph ids taken for characters: most TrueType fonts number the letters from 36 on."""
    return "".join(chr(ord(c) - 29) if 61 < ord(c) < 127 else c for c in text)


DAMAGE = {
    "substituted letters": substituted(GOOD["en"]),
    "glyph numbers": glyph_numbers(GOOD["en"]),
    "UTF-8 read as Latin-1": GOOD["ja"].encode().decode("latin-1"),
    "Shift JIS read as Latin-1": GOOD["ja"].encode("cp932").decode("latin-1"),
    "UTF-8 read as Shift JIS": GOOD["ja"].encode().decode("cp932", "replace"),
    "characters shifted": "".join(
        chr(ord(c) + 1234) if "\u3040" <= c < "\u9fff" else c for c in GOOD["ja"]
    ),
    "replacement characters": "�" * 30 + " page 3",
    "private use": "".join(chr(0xE000 + ord(c) % 200) for c in GOOD["en"]),
    "scripts mixed": "ظٜ舅Ⳃ榟䡗بتطّٗ٭ا٭؝ؕغք؛٭و٤ظ٭ذ⴫䶹䭤",
}


@pytest.mark.parametrize("text", DAMAGE.values(), ids=DAMAGE)
def test_damaged_text_is_garbage(text):
    health = judge(text)
    assert health.state == "garbage"
    assert health.bad_share > 0.5


def test_good_lines_of_a_damaged_page_are_kept():
    health = judge(f"{DAMAGE['scripts mixed']}\n3 Results\n{DAMAGE['scripts mixed']}")
    assert health.state == "garbage"
    assert health.text == "3 Results"


def test_nothing_is_no_text():
    assert judge(" \n\t\n").state == "none"


def test_cost_of_letter_pairs():
    english, n_pairs = latin_cost(["the", "report"])
    noise, _ = latin_cost(["qxz", "vkqjwx"])
    assert n_pairs == 11  # one more than the letters of each word
    assert english < 3.5 < 7 < noise


def test_share_of_bad_letters():
    assert bad_letter_share("plain") == 0.0
    assert bad_letter_share("1234 %") == 0.0
    assert bad_letter_share("ab��") == 0.5


@pytest.mark.parametrize(("language", "text"), GOOD.items(), ids=GOOD)
def test_language(language, text):
    assert language_of(text) == language


def test_a_japanese_table_with_hardly_any_kana_is_not_chinese():
    table = (
        "東京都千代田区中央区港区新宿区文京区台東区墨田区江東区品川区目黒区大田区患者累計のうち退院"
    )
    assert language_of(table) == "ja"
    assert language_of(table.replace("のうち", "")) == "zh"


def test_language_of_numbers_is_unknown():
    assert language_of("12 345 % 2024 " * 20) is None
