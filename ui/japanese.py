"""Error lines in Japanese. The rest of the program speaks English; the page speaks both.

A line that is not known here is shown as it is: better in English than not at all.
"""

import re

# A whole line, or what follows "name: "; groups are put in as they stand.
_LINES: tuple[tuple[str, str], ...] = (
    # the server
    (r"the model is still being opened; try again in a minute",
     "モデルを準備しています。1分ほどしてからもう一度お試しください"),
    (r"the question has (\d+) characters, (\d+) are the most",
     "質問が長すぎます（{0}文字）。{1}文字までにしてください"),
    (r"the question is empty; say what to look for",
     "質問が空です。探したいことを入力してください"),
    (r"the answer took longer than (\S+) s and was stopped",
     "回答が{0}秒を超えたため中止しました"),
    (r"waited too long for its turn; try again later",
     "順番待ちが長すぎました。後でもう一度お試しください"),
    (r"(\d+) questions are waiting already; try again in a minute",
     "すでに{0}件の質問が待っています。1分ほどしてからもう一度お試しください"),
    (r"(\d+) of your questions are waiting already; try again when one is answered",
     "すでにあなたの質問が{0}件待っています。どれかの回答が済んでからもう一度お試しください"),
    (r"documents are being added(?: or removed| already)?; wait until that is done",
     "文書の追加または削除の途中です。終わるまでお待ちください"),
    (r"nothing is indexed yet; add documents first",
     "まだ何も登録されていません。先に文書を追加してください"),
    (r"nothing to read: name a file or a folder",
     "読むものがありません。ファイルかフォルダーを指定してください"),
    (r"(\d+) of (\d+) documents are not read to the end, so the answer may be there; "
     r"`yomu list` says why",
     "{1}件の文書のうち{0}件は最後まで読めていないため、答えがそこにあるかもしれません"),
    (r"page (\d+) of (.+) is not in the index", "{1}の{0}ページは登録されていません"),
    (r"(.+) is not in the index", "{0}は登録されていません"),
    (r"no document (.+) in the index; .+", "{0}は登録されていません"),
    (r"no document matches (.+?)(?:; `yomu list`.*)?", "{0}に当てはまる文書がありません"),
    (r"the index (.+) holds no document; .+", "文書がまだ登録されていません"),
    (r"(.+) is no date; write YYYY-MM-DD, as in (.+)",
     "{0}は日付として読めません。{1}のように年-月-日で入力してください"),
    (r"(\S+) is after (\S+): no day is in between", "開始日{0}が終了日{1}より後になっています"),
    (r"no model (.+?): it is neither a folder nor in .+",
     "モデル{0}がまだありません。サーバーで `yomu models pull モデル名` を実行すると入手できます"),
    (r"an error of the server; its log has the cause",
     "サーバーのエラーです。原因はサーバーの記録にあります"),
    (r"(.+): no such file or folder", "{0}というファイルやフォルダーはありません"),
    (r"(.+) may not be read by this server; start it with `--root FOLDER` to allow a folder",
     "{0}を読むことは許可されていません。サーバーを `--root フォルダー` 付きで起動してください"),
    (r"(.+) is (-?\d+), it must be from (\d+) to (\d+)",
     "{0}は{2}から{3}までです（{1}が指定されました）"),
    # at the door
    (r"log in with a name and a password", "名前とパスワードでログインしてください"),
    (r"too many wrong passwords; wait before the next try",
     "パスワードの間違いが続きました。しばらく待ってからもう一度お試しください"),
    (r"this server does not go by that name; see `yomu serve --allow-host`",
     "このサーバーはその名前では開けません。`yomu serve --allow-host`をご覧ください"),
    (r"requests from another site are not accepted",
     "ほかのサイトからのリクエストは受け付けません"),
    (r"the content length is no number", "Content-Lengthが数値ではありません"),
    (r"the request is too large", "リクエストが大きすぎます"),
    # uploads
    (r"only PDF, image and Office files can be added",
     "追加できるのはPDF・画像・Officeファイルだけです"),
    (r"(.+) is larger than (\S+) MB", "{0}は{1} MBを超えています"),
    (r"(.+) could not be kept \((.+)\); make room and add it again",
     "{0}を保存できませんでした（{1}）。空き容量を作ってからもう一度追加してください"),
    (r"([^:]+) is empty \(0 bytes\)", "{0}は空のファイルです（0バイト）"),
    (r"is no regular file", "普通のファイルではありません"),
    (r"folder cannot be looked into: (.+)", "フォルダーの中を見ることができません（{0}）"),
    (r"is a link to a folder and was not followed; name the folder itself to read it",
     "フォルダーへのリンクのため読んでいません。元のフォルダーを指定してください"),
    (r"(.+) is not what its name says; nothing was added",
     "{0}は中身が拡張子と違います。追加しませんでした"),
    (r"its file is gone; add it again", "元のファイルがありません。もう一度追加してください"),
    # reading
    (r"is no PDF; look at its pages instead", "PDFではありません。ページの画像をご覧ください"),
    (r"its file has changed since; `yomu ingest` reads it anew",
     "ファイルが変わっています。もう一度読み込んでください"),
    (r"(?:its file )?cannot be read: (.+)", "読めません（{0}）"),
    (r"is empty \(0 bytes\)", "空のファイルです（0バイト）"),
    (r"has an impossible page box \((.+)\)", "ページの大きさがありえません（{0}）"),
    (r"has no pages(.*)", "ページがありません{0}"),
    (r"is encrypted: give its password by --password or --password-file",
     "パスワードで保護されています。パスワードを入力して、もう一度読み込んでください"),
    (r"is encrypted and (.+)", "パスワードで保護されていて、指定のものでは開けません"),
    (r"is not a PDF or an image of a known kind \((.+)\); convert it to one",
     "PDFでも対応する画像（{0}）でもありません。変換してから追加してください"),
    (r"has too many pixels \(over (.+)\)", "画素数が多すぎます（上限{0}）"),
    (r"is a damaged image: (.+)", "画像が壊れています（{0}）"),
    (r"is an Office file \((.+)\): install LibreOffice, or save it as PDF",
     "Officeファイル（{0}）です。LibreOfficeを入れるか、PDFで保存してください"),
    (r"is an Office file under a path that is not UTF-8, which LibreOffice cannot open: .+",
     "Officeファイルですが、パスがUTF-8でないためLibreOfficeで開けません。名前を変えるか、PDFで保存してください"),
    (r"is no PDF but (.+): save it as a PDF, or give it its own ending",
     "拡張子は.pdfですが中身は別の種類（{0}）です。PDFで保存するか、本来の拡張子に直してください"),
    (r"is not a PDF", "PDFではありません"),
    (r"LibreOffice took longer than (\S+) s and was stopped",
     "LibreOfficeが{0}秒を超えたため中止しました"),
    (r"LibreOffice could not convert it \(exit (.+)\)",
     "LibreOfficeで変換できませんでした（終了コード{0}）"),
    (r"page is blank, like all of this document", "ページが白紙です（この文書の全ページが白紙）"),
    (r"took longer than (\S+) s and was stopped", "{0}秒を超えたため中止しました"),
    (r"took more than (\S+) s of CPU and was stopped", "CPUを{0}秒以上使ったため中止しました"),
    (r"crashed the renderer \((.+)\)", "描画プログラムが異常終了しました（{0}）"),
    (r"the renderer did not start within (\S+) s", "描画プログラムが{0}秒以内に起動しませんでした"),
    (r"needs more memory than a page may take", "1ページに使えるメモリを超えました"),
    (r"reading was stopped", "読み込みを中止しました"),
    (r"nothing to read in (.+): no PDF.+",
     "{0}には読めるもの（PDF・画像・Officeファイル）がありません"),
    (r"another process is writing to this index; .+",
     "別のプログラムが索引に書き込んでいます。終わるまでお待ちください"),
    (r"could not write \((.+)\); everything committed before is safe: .+",
     "書き込めませんでした（{0}）。それまでに保存した分は無事です。空き容量を作ってもう一度お試しください"),
    (r"index format (\d+), this program reads format (\d+); .+",
     "索引の形式{0}は読めません（このプログラムは形式{1}）。別のフォルダーに作り直してください"),
    (r"this index was made with (.+?); (?:use .+, or )?ingest again into a new folder with .+",
     "索引は別のモデルや設定で作られています（{0}）。"
     "同じモデルでサーバーを起動し直すか、新しい索引に読み込み直してください"),
    (r"(.+); delete the index folder and ingest again; the documents themselves are untouched",
     "索引が壊れています（{0}）。索引のフォルダーを削除して読み込み直してください。文書は無事です"),
    (r"Tesseract took longer than (\S+) s", "Tesseractが{0}秒を超えました"),
    (r"Tesseract failed: (.+)", "Tesseractが失敗しました（{0}）"),
    (r"cannot be opened as a PDF: (.+)", "PDFとして開けません（{0}）"),
    (r"(.+), p\. (\d+) is left out: the model's context of (\d+) tokens is full",
     "{0}の{1}ページは、モデルが一度に読める量（{2}トークン）を超えるため省きました"),
    (r"the earliest (\d+) of (\d+) turns are left out: the model's context of (\d+) tokens is full",
     "これまでの{1}回のやりとりのうち古い{0}回は、モデルが一度に読める量を超えるため省きました"),
    (r"no page can be read any more: (.+)", "読めるページがなくなりました：{0}"),
)  # fmt: skip
# lines around another one
_AROUND = (
    (re.compile(r"(.+), p\. (\d+): only its small stored image could be used: (.+)"),
     "{0}の{1}ページは、保存してある小さな画像だけで読みました：{2}"),
    (re.compile(r"(.+), p\. (\d+) is left out: (.+)"), "{0}の{1}ページは省きました：{2}"),
    (re.compile(r"OCR: (.+)"), "文字認識：{0}"),
)  # fmt: skip
_KNOWN = tuple((re.compile(rf"(.+: )?{pattern}", re.DOTALL), said) for pattern, said in _LINES)


def in_japanese(line: str) -> str:
    """Return an error line in Japanese, or as it is if nobody has translated it."""
    for pattern, said in _AROUND:
        if found := pattern.fullmatch(line):
            *groups, inner = found.groups()
            if (translated := in_japanese(inner)) != inner:
                return said.format(*groups, translated)
    for pattern, said in _KNOWN:
        if found := pattern.fullmatch(line):
            name, *groups = found.groups(default="")
            return f"{name}{said.format(*groups)}"
    return line
