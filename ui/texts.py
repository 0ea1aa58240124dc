"""All words of the page, in English and Japanese; no gradio.

Static labels go through gr.I18n, which the browser resolves. What is written while the page is in
use is worded here by the language the browser asks for: the same header, so the same language.
"""

ENGLISH: dict[str, str] = {
    "tab_ask": "Ask",
    "tab_library": "Library",
    "tab_test": "Retrieval test",
    "tab_status": "Status",
    "tagline": "Answers that show their pages",
    # ask
    "question": "Question",
    "question_hint": "What do you want to know from these documents?",
    "ask": "Ask",
    "stop": "Stop",
    "options": "Options",
    "documents_filter": "Documents",
    "documents_filter_info": "Empty: all. A name, or a pattern such as reports/2024-*",
    "date_from": "File changed from",
    "date_to": "File changed until",
    "date_hint": "YYYY-MM-DD",
    "mode": "Rank by",
    "mode_hybrid": "Image and text",
    "mode_visual": "Page image",
    "mode_text": "Text",
    "top_k": "Pages to find",
    "pages": "Pages to read (0: as suits the model)",
    "neighbours": "Pages before and after",
    "follow_up": "Follow-up question: go on with the conversation and its pages",
    "examples": "Try",
    "example_generic": "What is the total amount?",
    "evidence": "Pages found",
    "answer": "Answer",
    "answer_empty": "The answer will be written here, with the pages it was read from.",
    "evidence_none": "No page of these documents matches. Try other words, or fewer filters.",
    "not_relevant": "Nothing here answers the question. These pages are the nearest.",
    "read_from": "Read from",
    "notes": "Notes",
    "copy": "Copy",
    "copied": "Copied",
    "export_markdown": "Markdown",
    "export_json": "JSON",
    "earlier": "Earlier in this visit",
    "forget": "Clear history",
    "forget_sure": "Clear all questions of this visit?",
    "unanswered": "The page was loaded anew before this was answered: ask again.",
    "stopped": "Stopped.",
    "quoted": "These are the words of the pages, not an answer of the model: the model in use "
    "cannot read answers off pages yet.",
    "cut": "The answer reached its longest length.",
    "repeated": "The answer was stopped: it repeated itself.",
    "waiting": "Waiting: {n} before you",
    "searching": "Searching",
    "found": "{n} pages found",
    "found_1": "1 page found",
    "reading": "Reading {n} pages",
    "reading_1": "Reading 1 page",
    "writing": "Writing",
    "done": "Done",
    "seconds": "{s} s",
    "score": "score {score}",
    "page_short": "p. {page}",
    "page_of": "page {page} of {total}",
    "page_alt": "{document}, page {page}",
    # viewer
    "viewer": "Page",
    "viewer_empty": "Choose a page to see it here.",
    "previous": "Previous page",
    "next": "Next page",
    "zoom_in": "Zoom in",
    "zoom_out": "Zoom out",
    "zoom_fit": "Fit width",
    "open_pdf": "Open PDF",
    "heatmap": "Heatmap",
    "heat_total": "Whole question",
    "heat_none": "Off",
    "heat_missing": "No heatmap: {reason}",
    "boxes": "Words of the answer are framed.",
    # library
    "add": "Add documents",
    "drop": "PDFs, images or Office files",
    "folder": "Folder on the server",
    "folder_info": "Only below a folder that the server allows",
    "folder_hint": "samples",
    "read_folder": "Read folder",
    "password": "Password of protected files",
    "password_info": "Tried on what you add next or read again; not kept",
    "job_documents": "{done} of {total} documents",
    "job_pages": "{done} of {total} pages",
    "job_speed": "{speed} pages per second",
    "job_left": "about {left} left",
    "job_running": "Reading documents",
    "job_finished": "Finished",
    "job_stopped": "Stopped",
    "job_remarks": "Remarks",
    "job_cancel": "Stop reading",
    "job_idle": "Nothing is being read.",
    "job_failures": "Could not be read",
    "job_dropped": "Not read, and so not kept",
    "job_summary": "{added} added, {updated} updated, {unchanged} unchanged, {failed} failed",
    "documents": "Documents",
    "name": "Name",
    "page_count": "Pages",
    "size": "Size",
    "date": "File changed (uploads: day of upload)",
    "state": "State",
    "actions": "Actions",
    "remove": "Remove",
    "remove_sure": "Remove for good?",
    "reread": "Read again",
    "removed": "{document} was removed.",
    "rereading": "{document} is being read again.",
    "uploading": "{n} files were taken; reading starts.",
    "uploading_1": "1 file was taken; reading starts.",
    "status_new": "waiting",
    "status_partial": "partly read",
    "status_complete": "ready",
    "status_damaged": "some pages failed",
    "status_failed": "could not be read",
    "whole_document": "{document} (whole document)",
    "usage": "Space used",
    "usage_total": "total",
    "usage_vectors": "vectors",
    "usage_codes": "codes",
    "usage_images": "page images",
    "usage_database": "text and catalogue",
    "usage_uploads": "uploaded files",
    "usage_per_page": "per page",
    # retrieval test
    "test_intro": "The same question three ways, each with scores of its own scale. "
    "Choose a page to see where it matches.",
    "test_run": "Compare",
    "test_none": "nothing found",
    "test_image": "Or pages that look like an image or a PDF's first page",
    # states
    "empty_title": "Nothing is indexed yet.",
    "empty_text": "Add documents under Library, or run: uv run ingest.py samples/",
    "model_loading": "The model is being opened; text search works already.",
    "model_failed": "The model is not available: {reason}",
    "indexing": "Still indexing: {done} of {total} pages. What is ready can be asked already.",
    "indexing_start": "Still indexing. What is ready can be asked already.",
    "error": "This did not work: {reason}",
    # status
    "status_model": "Model",
    "status_state": "State",
    "state_loading": "being opened",
    "state_ready": "ready",
    "state_failed": "not available",
    "status_device": "Device",
    "status_precision": "Precision",
    "status_index": "Index",
    "status_documents": "Documents",
    "status_pages": "Pages",
    "status_bytes": "Size",
    "status_waiting": "Questions waiting",
    "status_versions": "Versions",
    "about_model": "What this model can do",
    "about_embedded": (
        "This is the small model that ships with Yomu, so that everything works offline at once. "
        "It finds pages by their text and by their image, and quotes the lines that speak "
        "of the question. It does not write answers of its own yet, and charts are beyond it. "
        "For real work choose ColQwen2 with Qwen2-VL: uv run yomu models pull colqwen2-v1.0"
    ),
    "about_real": (
        "This is a full Qwen2-VL with a ColQwen2 adapter. It reads text, tables and charts from "
        "the page image, in English and Japanese. It can be wrong: check the answer against the "
        "pages beside it, above all numbers."
    ),
    "about_missing": (
        "No model is at hand, so pages are found by their text alone and nothing is answered."
    ),
    "refresh": "Refresh",
    "try_again": "Try again",
}

JAPANESE: dict[str, str] = {
    "tab_ask": "質問",
    "tab_library": "文書",
    "tab_test": "検索テスト",
    "tab_status": "状態",
    "tagline": "根拠のページが見える答え",
    "question": "質問",
    "question_hint": "これらの文書について知りたいことは何ですか",
    "ask": "質問する",
    "stop": "停止",
    "options": "詳細設定",
    "documents_filter": "文書",
    "documents_filter_info": "空欄：すべて。文書名、または reports/2024-* のような型",
    "date_from": "ファイル更新日（から）",
    "date_to": "ファイル更新日（まで）",
    "date_hint": "YYYY-MM-DD",
    "mode": "検索方法",
    "mode_hybrid": "画像と文字",
    "mode_visual": "ページ画像",
    "mode_text": "文字",
    "top_k": "探すページ数",
    "pages": "読むページ数（0：モデルに任せる）",
    "neighbours": "前後のページ数",
    "follow_up": "続けて質問する（会話とそのページを引き継ぐ）",
    "examples": "質問例",
    "example_generic": "合計金額はいくらですか。",
    "evidence": "見つかったページ",
    "answer": "答え",
    "answer_empty": "答えと、その根拠になったページがここに表示されます。",
    "evidence_none": "一致するページがありません。言葉を変えるか、絞り込みを減らしてください。",
    "not_relevant": "答えになるページは見つかりませんでした。近いページを表示しています。",
    "read_from": "根拠のページ",
    "notes": "補足",
    "copy": "コピー",
    "copied": "コピーしました",
    "export_markdown": "Markdown",
    "export_json": "JSON",
    "earlier": "これまでの質問",
    "forget": "履歴を消す",
    "forget_sure": "これまでの質問をすべて消しますか",
    "unanswered": "回答の前にページが再読み込みされました。もう一度質問してください。",
    "stopped": "停止しました。",
    "quoted": "これはモデルの回答ではなく、各ページの文言の引用です。"
    "現在のモデルは、まだページから答えを読み取れません。",
    "cut": "答えが長さの上限に達しました。",
    "repeated": "答えが同じ言葉の繰り返しになったため、停止しました。",
    "waiting": "順番待ち：前に{n}件",
    "searching": "検索",
    "found": "{n}ページ見つかりました",
    "found_1": "1ページ見つかりました",
    "reading": "{n}ページの読み取り",
    "reading_1": "1ページの読み取り",
    "writing": "回答の作成",
    "done": "完了",
    "seconds": "{s} 秒",
    "score": "スコア {score}",
    "page_short": "{page}ページ",
    "page_of": "{page} / {total} ページ",
    "page_alt": "{document} の{page}ページ",
    "viewer": "ページ",
    "viewer_empty": "ページを選ぶと、ここに表示されます。",
    "previous": "前のページ",
    "next": "次のページ",
    "zoom_in": "拡大",
    "zoom_out": "縮小",
    "zoom_fit": "幅に合わせる",
    "open_pdf": "PDFを開く",
    "heatmap": "ヒートマップ",
    "heat_total": "質問全体",
    "heat_none": "なし",
    "heat_missing": "ヒートマップなし：{reason}",
    "boxes": "答えの言葉を枠で示しています。",
    "add": "文書を追加",
    "drop": "PDF・画像・Officeファイル",
    "folder": "サーバー上のフォルダー",
    "folder_info": "サーバーが許可したフォルダーの中だけ",
    "folder_hint": "samples",
    "read_folder": "読み込む",
    "password": "保護されたファイルのパスワード",
    "password_info": "次に追加・再読み込みするファイルに使います。保存されません",
    "job_documents": "文書 {done} / {total}",
    "job_pages": "ページ {done} / {total}",
    "job_speed": "毎秒 {speed} ページ",
    "job_left": "残り約 {left}",
    "job_running": "文書を読み込み中",
    "job_finished": "読み込み完了",
    "job_stopped": "読み込みを中止しました",
    "job_remarks": "お知らせ",
    "job_cancel": "読み込みを中止",
    "job_idle": "読み込み中の文書はありません。",
    "job_failures": "読み込めなかったもの",
    "job_dropped": "読み込まなかったため、保存していないもの",
    "job_summary": "追加 {added}、更新 {updated}、変更なし {unchanged}、失敗 {failed}",
    "documents": "文書一覧",
    "name": "名前",
    "page_count": "ページ数",
    "size": "サイズ",
    "date": "ファイル更新日（アップロードした文書はその日）",
    "state": "状態",
    "actions": "操作",
    "remove": "削除",
    "remove_sure": "本当に削除しますか",
    "reread": "読み直す",
    "removed": "{document} を削除しました。",
    "rereading": "{document} を読み直しています。",
    "uploading": "{n}件のファイルを受け取りました。読み込みを始めます。",
    "uploading_1": "1件のファイルを受け取りました。読み込みを始めます。",
    "status_new": "待機中",
    "status_partial": "一部のみ",
    "status_complete": "準備完了",
    "status_damaged": "一部のページに失敗",
    "status_failed": "読み込めません",
    "whole_document": "{document}（文書全体）",
    "usage": "使用容量",
    "usage_total": "合計",
    "usage_vectors": "ベクトル",
    "usage_codes": "符号",
    "usage_images": "ページ画像",
    "usage_database": "文字と目録",
    "usage_uploads": "アップロード",
    "usage_per_page": "1ページあたり",
    "test_intro": "同じ質問を三つの方法で比べます（スコアの尺度は方法ごとに異なります）。"
    "ページを選ぶと一致した場所が見えます。",
    "test_run": "比べる",
    "test_none": "見つかりません",
    "test_image": "または、画像やPDFの1ページ目に似たページ",
    "empty_title": "まだ文書がありません。",
    "empty_text": "「文書」タブで追加するか、次を実行してください：uv run ingest.py samples/",
    "model_loading": "モデルを準備しています。文字の検索はもう使えます。",
    "model_failed": "モデルを使えません：{reason}",
    "indexing": "読み込み中：{done} / {total} ページ。済んだ分にはもう質問できます。",
    "indexing_start": "読み込み中です。済んだ分にはもう質問できます。",
    "error": "うまくいきませんでした：{reason}",
    "status_model": "モデル",
    "status_state": "状態",
    "state_loading": "準備中",
    "state_ready": "使用可能",
    "state_failed": "使用できません",
    "status_device": "装置",
    "status_precision": "精度",
    "status_index": "索引",
    "status_documents": "文書数",
    "status_pages": "ページ数",
    "status_bytes": "サイズ",
    "status_waiting": "待っている質問",
    "status_versions": "バージョン",
    "about_model": "このモデルにできること",
    "about_embedded": (
        "すぐにオフラインで使えるよう Yomu に同梱された小さなモデルです。文字と"
        "ページの画像の両方からページを探し、質問に関係する行を引用します。自分の言葉で答えることはまだできず、グラフは"
        "読み取れません。本格的な利用には ColQwen2 と "
        "Qwen2-VL を選んでください：uv run yomu models pull colqwen2-v1.0"
    ),
    "about_real": (
        "ColQwen2 アダプターを備えた Qwen2-VL です。ページ画像から文字・表・グラフを、英語と"
        "日本語で読み取ります。誤ることもあります。とくに数値は、横のページで確かめてください。"
    ),
    "about_missing": "モデルがないため、ページは文字だけで探し、回答はしません。",
    "refresh": "更新",
    "try_again": "もう一度試す",
}

TEXTS: dict[str, dict[str, str]] = {"en": ENGLISH, "ja": JAPANESE}

# Sample document -> what may be asked about it, in its own language.
EXAMPLES: dict[str, tuple[str, str]] = {
    "annual-report.pdf": ("en", "What were the total sales in 2023?"),
    "electricity-chart.pdf": ("en", "How much electricity did the library use in March?"),
    "kettle-manual.pdf": ("en", "What is the capacity of the kettle?"),
    "tourism-ja.pdf": ("ja", "花火大会はいつ開かれましたか。"),
}


def language_of(accept_language: str | None) -> str:
    """Return "ja" or "en", as the first language that an Accept-Language header wants.

    The first alone, English if it is another: Gradio chooses the labels so, and what is written
    while the page is in use is to be in the same language.
    """
    ranked = []
    for n, part in enumerate((accept_language or "").split(",")):
        tag, _, weight = part.strip().partition(";q=")
        try:
            ranked.append((-float(weight or 1), n, tag.strip().lower().split("-")[0]))
        except ValueError:
            continue
    first = min(ranked, default=(0, 0, "en"))[2]
    return first if first in TEXTS else "en"


def word(language: str, key: str, **values: object) -> str:
    """Return one text with its values filled in; a value is never read as a template."""
    return TEXTS[language][key].format(**values)


def sentences(language: str, *keys: str) -> str:
    """Return texts that are sentences one after the other, spaced as the language wants."""
    return ("" if language == "ja" else " ").join(word(language, key) for key in keys)


def counted(language: str, key: str, n: int) -> str:
    """Return a text for a number of things: `key`_1 for one of them."""
    return word(language, f"{key}_1" if n == 1 else key, n=n)


def examples(documents: frozenset[str], language: str) -> list[str]:
    """Return questions to try: about the samples, where indexed, or one for any document.

    Those in the reader's own language come first.
    """
    known = [each for name, each in EXAMPLES.items() if _is_among(name, documents)]
    ranked = sorted(known, key=lambda each: each[0] != language)
    return [text for _, text in ranked] or [word(language, "example_generic")]


def _is_among(name: str, documents: frozenset[str]) -> bool:
    return any(each.rsplit("/", 1)[-1] == name for each in documents)


def size_text(n_bytes: float) -> str:
    """Return a size as a person reads it: "3.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"


def time_text(seconds: float) -> str:
    """Return a duration as "0:42" or "1:05:00"."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
