"""From nothing to an answer with tiny random weights, by the commands a person types."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import typer.main

import models
from models.generator import Generator
from models.sampling import Sampling
from models.video import MAX_FRAMES
from rag.cli import app, main
from rag.cli_common import printable
from tests.parity import cases, tiny

ROOT = Path(__file__).parents[2]
YOMU = "import sys; from rag.cli import main; main(sys.argv[1:])"


def process(*arguments) -> subprocess.CompletedProcess:
    """Run `yomu` as a person does."""
    return subprocess.run(
        [sys.executable, "-c", YOMU, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip


@pytest.fixture
def yomu(capsys):
    """Run `yomu` in this process; return exit code, stdout and stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def look(yomu, model_folder):
    """Run `yomu look --json` on the float32 folder; return its JSON."""

    def run(*arguments, model=None):
        folder = model_folder() if model is None else model
        code, out, err = yomu("look", "--model", folder, "--json", *arguments)
        assert code == 0, err
        assert out.count("\n") == 1
        return json.loads(out)

    return run


@pytest.fixture
def scripted(monkeypatch):
    """Make every generator say this text, control tokens included."""

    def say(text, between=lambda: None, stop_reason="end"):
        tokenizer = tiny.tokenizer()
        ids = tokenizer.encode(text, add_special_tokens=False).ids

        def tokens(self, conversation, progress, *rest):
            for n, token in enumerate(ids, 1):
                progress.timings.n_tokens = n
                yield token
                between()
            progress.stop_reason = stop_reason

        monkeypatch.setattr(Generator, "_tokens", tokens)

    return say


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    paths = [tmp_path / f"picture-{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        cases.picture(84, 112, seed=n).save(path)
    return paths


@pytest.fixture
def clip(tmp_path) -> Path:
    """Six frames of 56 × 84, ten a second."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 56, 84, "yuv420p"
        for level in range(0, 240, 40):
            pixels = np.full((56, 84, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


# --- the seven steps ------------------------------------------------------------------------


def test_from_checkpoints_to_a_streamed_answer(checkpoints, tmp_path, yomu, pictures):
    """Build, verify, info, load, encode, generate, stream."""
    folder, base = tmp_path / "colqwen2", checkpoints / "base"
    views = ("--band-rows", 2, "--overview-tokens", 3, "--shifted-views")
    command = ("models", "build", checkpoints / "adapter", folder, "--base", base, *views, "--json")
    built = process(*command)
    assert built.returncode == 0, built.stderr
    info = json.loads(built.stdout)
    assert (info["band_rows"], info["overview_tokens"], info["shifted_views"]) == (2, 3, True)
    assert info["roles"] == ["retriever", "generator"]
    assert info["precision"] == dict.fromkeys(("vision", "decoder", "lm_head"), "int8")
    assert info["bytes"] == sum(path.stat().st_size for path in folder.iterdir())

    assert yomu("models", "verify", folder)[:2] == (0, f"{folder}: every file is as it was built\n")
    code, out, _ = yomu("models", "info", folder, "--json")
    assert code == 0 and json.loads(out) == info

    engine = models.load(folder, device="cpu")
    assert engine.info.digest == info["digest"]
    page = cases.picture(84, 112, seed=0)
    (page_vectors,) = engine.retriever.encode_pages([page])
    options = engine.retriever.options
    assert (options.band_rows, options.overview_tokens, options.shifted_views) == (2, 3, True)
    (query_vectors,) = engine.retriever.encode_queries(["What is the total?"])
    assert page_vectors.shape[1] == query_vectors.shape[1] == 128
    assert np.isfinite((query_vectors @ page_vectors.T).max(axis=1).sum())

    answer = engine.generator.generate([page], "What?", 12, sampling=Sampling())
    pieces = list(answer)
    assert len(pieces) > 1 and answer.timings.n_tokens == 12

    arguments = ("--input", pictures[0], "--prompt", "What?", "--max-new-tokens", 12)
    seen = process("look", "--model", folder, *arguments)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout == printable("".join(pieces)) + "\n"
    assert seen.stderr == "yomu: cut after 12 tokens; --max-new-tokens allows more\n"


def test_what_the_commands_import():
    """torch, gradio and their like take seconds; `--help` does not even need onnxruntime."""
    code = (
        "import sys\n"
        "from rag.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(name for name in sys.modules if '.' not in name))"
    )

    def imported(*arguments):
        run = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
        )
        return set(run.stderr.split("\n")[-1].split())

    heavy = {"torch", "transformers", "gradio", "pymupdf", "faiss", "onnx"}
    of_help = imported("--help")
    assert "typer" in of_help and not of_help & (heavy | {"onnxruntime", "numpy"})
    of_look = imported("look", "--input", "gone.png", "--model", "gone")
    assert "rag" in of_look and not of_look & heavy


# --- models ---------------------------------------------------------------------------------


def test_precision_of_each_part(checkpoints, tmp_path, yomu):
    parts = ("--precision", "int4", "--vision", "fp16", "--lm-head", "auto")
    code, out, _ = yomu(
        "models", "build", checkpoints / "qwen2vl", tmp_path / "m", *parts, "--json"
    )
    info = json.loads(out)
    assert code == 0
    assert info["precision"] == {"vision": "fp16", "decoder": "int4", "lm_head": "int8"}
    code, out, _ = yomu(
        "models", "build", checkpoints / "qwen2vl", tmp_path / "g", "--target", "gpu", "--json"
    )
    assert (code, json.loads(out)["target"]) == (0, "gpu")
    assert set(json.loads(out)["precision"].values()) == {"fp16"}


def test_info_for_a_person_says_when_the_generator_has_its_own_weights(
    checkpoints, tmp_path, yomu, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    other = tiny.write_qwen2vl(tmp_path / "other", tiny.replace(tiny.TINY, seed=5))
    arguments = ("--base", checkpoints / "base", "--generator", other)
    code, out, err = yomu("models", "build", checkpoints / "adapter", tmp_path / "m", *arguments)
    assert code == 0, err
    assert "has its own vision tower and decoder: its weights differ" in out
    assert "3 layers × 64" in out and "up to 768 visual tokens" in out


def test_verify_lists_what_is_damaged_and_exits_with_1(model_folder, tmp_path, yomu):
    folder = shutil.copytree(model_folder(), tmp_path / "model")
    (folder / "vision.onnx").write_bytes(b"")
    code, out, _ = yomu("models", "verify", folder)
    assert code == 1
    assert out == f"{folder}: vision.onnx: damaged (its sha256 differs from model.json)\n"
    code, out, _ = yomu("models", "verify", folder, "--json")
    assert (code, len(json.loads(out)["faults"])) == (1, 1)


def test_verify_records_a_change_that_was_meant(model_folder, tmp_path, yomu):
    folder = shutil.copytree(model_folder(), tmp_path / "model")
    (folder / "answer.json").write_text('{"pages": 1}')
    code, out, _ = yomu("models", "verify", folder)
    assert (code, out) == (1, f"{folder}: answer.json: not listed in model.json\n")
    code, out, _ = yomu("models", "verify", folder, "--record")
    assert (code, out) == (0, f"{folder}: every file is as recorded\n")
    assert yomu("models", "verify", folder)[0] == 0


def test_list_shows_pulled_models_and_what_is_wrong_with_them(
    model_folder, tmp_path, yomu, monkeypatch
):
    monkeypatch.setenv("YOMU_MODELS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(model_folder(), tmp_path / "good")
    (tmp_path / "bad").mkdir()
    code, out, _ = yomu("models", "list", "--json")
    found = {each["name"]: each for each in json.loads(out)["models"]}
    assert code == 0 and found["good"]["roles"] == ["retriever", "generator"]
    assert "no model.json" in found["bad"]["error"]
    code, out, _ = yomu("models", "list")
    assert code == 0 and "retriever, generator" in out and "unusable" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("models", "info", "gone"), "no model 'gone'"),
        (("models", "verify", "tests"), "no model folder (no model.json)"),
        (("models", "build", "a", "b", "--band-rows", "1"), "2 is the least"),
        (("look",), "nothing to look at: give --input IMAGE or --video FILE"),
        (("look", "gone.png"), "gone.png: no such file"),
        (("look", "--video", "gone.mp4"), "gone.mp4: no such file"),
        (("look", "README.md"), "README.md is not an image"),
        (("look", "PICTURE", "--model", "gone"), "no model 'gone'"),
        (("look", "PICTURE", "--device", "tpu"), "no device 'tpu'; choose one of auto"),
        (("look", "PICTURE", "--device", "directml"), "install onnxruntime-directml"),
        (("look", "PICTURE", "--prompt", " "), "the prompt is empty"),
        (("look", "PICTURE", "--prompt", "many " * 1000), "the model's context is 1024"),
        (("look", "PICTURE", "--precision", "int4"), "build one: yomu models build CHECKPOINT"),
        (("look", "PICTURE", "--min-pixels", "9000", "--max-pixels", "5000"), "is more than"),
    ],
    ids=lambda each: " ".join(each)[:40] if isinstance(each, tuple) else "",
)
def test_bad_input_gets_one_line_and_exit_code_2(yomu, model_folder, pictures, arguments, message):
    if "PICTURE" in arguments and "--model" not in arguments:
        arguments += ("--model", model_folder())
    arguments = [pictures[0] if each == "PICTURE" else each for each in arguments]
    code, out, err = yomu(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("yomu: ") and err.count("\n") == 1
    assert message in err


def test_a_template_that_is_none(checkpoints, tmp_path, yomu):
    arguments = (checkpoints / "qwen2vl", tmp_path / "m", "--query-template", "mine")
    code, _, err = yomu("models", "build", *arguments)
    assert code == 2 and "no query template 'mine'; choose one of colqwen2-v1.0" in err


def test_building_without_the_extra_says_how_to_get_it(checkpoints, tmp_path, yomu, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("models.build.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    code, _, err = yomu("models", "build", checkpoints / "qwen2vl", tmp_path / "m")
    assert code == 2 and "building needs onnx_ir" in err and "uv sync --extra build" in err


def test_a_log_level_that_is_none(yomu, monkeypatch):
    monkeypatch.setenv("YOMU_LOG", "loud")
    code, _, err = yomu("models", "list")
    assert code == 2 and err.startswith("yomu: YOMU_LOG is 'loud'; choose one of")


# --- look -----------------------------------------------------------------------------------


def test_inputs_by_name_and_place_are_all_seen(look, pictures):
    one, two, three = pictures
    few = ("--max-new-tokens", 3)
    alone = look("--input", one, *few)["timings"]
    assert alone["n_tokens"] == 3 and alone["vision_s"] > 0
    both = look("--input", one, "--input", two, *few)["timings"]
    every = look("--input", one, "--input", two, three, *few)["timings"]
    # Each of them is 12 visual tokens between a start and an end.
    assert both["n_prompt_tokens"] - alone["n_prompt_tokens"] == 14
    assert every["n_prompt_tokens"] - both["n_prompt_tokens"] == 14
    assert look(one, two, three, *few)["timings"]["n_prompt_tokens"] == every["n_prompt_tokens"]


def test_pixel_limits(look, pictures):
    def n_tokens(*arguments):
        return look(pictures[0], "--max-new-tokens", 1, *arguments)["timings"]["n_prompt_tokens"]

    usual = n_tokens()  # 84 × 112: 12 visual tokens
    assert n_tokens("--max-pixels", 4 * 784) == usual - 12 + 2  # 1 × 2, as the reference rounds
    assert n_tokens("--min-pixels", 20 * 784) >= usual - 12 + 20


def test_the_least_pixels_may_be_more_than_a_page_gets(look, model_folder, tmp_path, pictures):
    """They were cut to the model's budget, whatever --max-pixels said."""
    folder = shutil.copytree(model_folder(), tmp_path / "model")
    info = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(info | {"max_visual_tokens": 16}))

    def n_tokens(*arguments):
        found = look(pictures[0], "--max-new-tokens", 1, *arguments, model=folder)
        return found["timings"]["n_prompt_tokens"]

    usual = n_tokens()  # 12 visual tokens
    least = ("--min-pixels", 40 * 784)
    assert n_tokens(*least) >= usual - 12 + 40
    assert n_tokens(*least, "--max-pixels", 60 * 784) == n_tokens(*least)


def test_a_video_and_its_limits(look, clip):
    def n_tokens(*arguments):
        found = look("--video", clip, "--max-new-tokens", 1, *arguments)
        return found["timings"]["n_prompt_tokens"]

    # 0.6 s at 2 a second is 1 frame: at least 4 are taken, two fill a temporal patch.
    small = n_tokens("--max-pixels", 6 * 784)
    assert n_tokens("--max-pixels", 6 * 784, "--fps", 10) == small + 6
    assert n_tokens() - small >= 2 * (128 - 6), "without a limit frames are enlarged to 128 tokens"
    both = look(
        "--video", clip, "--max-new-tokens", 1, "--max-pixels", 6 * 784, "--min-pixels", 784
    )
    assert both["timings"]["n_prompt_tokens"] == small


def test_the_most_frames_of_a_video_are_in_the_help(yomu, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERMINAL_WIDTH", "300")
    code, out, _ = yomu("look", "--help")
    assert code == 0 and f"at most {MAX_FRAMES} in all" in " ".join(out.split())


def test_json_has_the_answer_and_its_boxes_on_the_page(look, scripted, pictures):
    scripted(
        "See <|object_ref_start|>the total<|object_ref_end|>"
        "<|box_start|>(250,500),(750,1000)<|box_end|>."
    )
    found = look(pictures[0], "--prompt", "Where is it?")
    assert found["prompt"] == "Where is it?"
    assert found["answer"] == "See the total."
    assert found["stop_reason"] == "end" and found["device"] == "cpu"
    box = {"label": "the total", "top": 0.5, "left": 0.25, "bottom": 1.0, "right": 0.75}
    # 84 rows and 112 columns of pixels
    box["pixels"] = {"top": 42, "left": 28, "bottom": 84, "right": 84}
    assert found["boxes"] == [box]
    several = look(*pictures)["boxes"][0]
    assert "pixels" not in several, "nobody knows of which picture"
    assert several["left"] == 0.25


def test_text_is_written_as_it_comes(yomu, scripted, pictures, model_folder, capsys):
    heard = []
    scripted("12", between=lambda: heard.append(capsys.readouterr().out))
    code, rest, _ = yomu("look", pictures[0], "--model", model_folder())
    assert (code, heard, rest) == (0, ["1", "2"], "\n")


def test_a_model_does_not_steer_the_terminal(yomu, look, scripted, pictures, model_folder):
    scripted("a\x1b[2Jb\u3000c")
    assert yomu("look", pictures[0], "--model", model_folder())[1] == "a[2Jb\u3000c\n"
    assert look(pictures[0])["answer"] == "a\x1b[2Jb\u3000c"


def test_brackets_in_the_name_of_a_model_are_no_markup(yomu, model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("YOMU_MODELS", str(tmp_path / "[red]home"))
    monkeypatch.setenv("COLUMNS", "300")
    folder = shutil.copytree(model_folder(), tmp_path / "[red]home" / "mine[x]")
    code, listed, _ = yomu("models", "list")
    assert code == 0 and "mine[x]" in listed and str(folder) in listed
    code, shown, _ = yomu("models", "info", "mine[x]")
    assert code == 0 and str(folder) in shown


@pytest.mark.parametrize(
    ("stop_reason", "longest", "prompt", "says"),
    [
        ("length", 2, "What?", "cut after 2 tokens; --max-new-tokens allows more"),
        ("length", 9, "What?", "cut after 2 tokens: the model's context is full"),
        ("length", 2, "何ですか", "2トークンで打ち切りました"),
        ("repetition", 9, "What?", "stopped: it repeated itself"),
    ],
)
def test_a_text_that_was_cut_says_so(
    yomu, scripted, pictures, model_folder, stop_reason, longest, prompt, says
):
    """On a terminal it looked like the whole answer."""
    scripted("12", stop_reason=stop_reason)
    arguments = ("--max-new-tokens", longest, "--prompt", prompt)
    command = ("look", pictures[0], "--model", model_folder(), *arguments)
    code, out, err = yomu(*command)
    assert (code, out) == (0, "12\n")
    assert err.startswith(f"yomu: {says}") and err.count("\n") == 1
    code, out, err = yomu(*command, "--json")
    assert (code, json.loads(out)["stop_reason"], err) == (0, stop_reason, "")


def test_precision_picks_the_folder_built_at_it(look, model_folder, tmp_path, pictures):
    for precision, name in (("int8", "m"), ("int4", "m-int4")):
        shutil.copytree(model_folder(precision), tmp_path / name)
    few = ("--max-new-tokens", 1, "--model", tmp_path / "m")
    assert look(pictures[0], *few, "--precision", "int4")["model"]
    opened = []
    real = models.load
    try:
        models.load = lambda folder, *rest: opened.append(Path(folder).name) or real(folder, *rest)
        for precision in ("auto", "int8", "int4"):
            look(pictures[0], *few, "--precision", precision)
    finally:
        models.load = real
    assert opened == ["m", "m", "m-int4"]


# --- help -----------------------------------------------------------------------------------


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_names_and_explains_every_option(path, yomu, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERMINAL_WIDTH", "300")
    code, out, err = yomu(*path, "--help")
    assert (code, err) == (0, "")
    command = COMMANDS[path]
    assert command.help.split("\n")[0] in out
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} is not explained"
        names = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
        assert all(name in out for name in names)


def test_paragraphs_of_the_help_fill_a_narrow_terminal(yomu, monkeypatch):
    """They broke where the source breaks as well: a word stood alone on every other line."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERMINAL_WIDTH", "60")
    _, out, _ = yomu("models", "build", "--help")
    paragraph = out.split("OUT appears", 1)[1].split("names it.")[0].splitlines()
    assert all(len(line.rstrip()) > 45 for line in paragraph[1:-1])


def test_a_closed_stdout_is_no_error():
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m rag models list --json >&-"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_piped_list_of_models_keeps_names_whole(yomu, tmp_path, monkeypatch):
    monkeypatch.setenv("YOMU_MODELS", str(tmp_path))
    name = "a-model-whose-name-is-longer-than-a-terminal-is-wide-" * 2
    (tmp_path / name).mkdir()
    _, out, _ = yomu("models", "list")
    assert str(tmp_path / name) in out


def test_the_commands_of_the_contract_are_there():
    wanted = {
        ("look",),
        *(("models", name) for name in ("list", "pull", "build", "info", "verify")),
    }
    assert wanted <= set(COMMANDS)
