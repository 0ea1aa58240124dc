"""Devices, broken graphs, and runs that are stopped from another thread."""

import logging
import os
import subprocess
import sys
import threading

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from models import session as session_module
from models.errors import DeviceError, ModelFilesError, ModelMemoryError, ModelNumbersError
from models.session import (
    Cancellation,
    Cancelled,
    Device,
    check_inputs,
    ensure_finite,
    open_session,
)

CPU = Device("cpu", "cpu")


@pytest.fixture
def with_providers(monkeypatch):
    def pretend(*names):
        found = [*(session_module.PROVIDERS[name] for name in names), "CPUExecutionProvider"]
        monkeypatch.setattr(ort, "get_available_providers", lambda: found)

    return pretend


def test_the_runtime_reports_to_nobody(tmp_path):
    """ONNX Runtime makes its files of telemetry when it is imported."""
    script = "import models.session, onnxruntime; onnxruntime.InferenceSession"
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", script], env=kept | home, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# --- devices --------------------------------------------------------------------------------


def test_auto_is_the_cpu_where_there_is_nothing_else(with_providers):
    with_providers()
    assert Device.choose("auto", "cpu") == Device.choose("auto", "gpu") == Device("auto", "cpu")


def test_auto_takes_a_gpu_for_a_folder_built_for_it_and_else_says_so(with_providers, caplog):
    with_providers("cuda")
    assert Device.choose("auto", "gpu").used == "cuda"
    assert not caplog.records
    assert Device.choose("auto", "cpu").used == "cpu"
    assert "--target gpu" in caplog.text


def test_a_device_by_name(with_providers):
    with_providers("openvino")
    assert Device.choose("openvino", "cpu").providers == [
        "OpenVINOExecutionProvider",
        "CPUExecutionProvider",
    ]
    assert Device.choose("cpu", "cpu").providers == ["CPUExecutionProvider"]


def test_an_unknown_device_is_refused():
    with pytest.raises(DeviceError, match="no device 'tpu'; choose one of auto, cpu, cuda"):
        Device.choose("tpu", "cpu")


@pytest.mark.parametrize("name", sorted(session_module.PACKAGES))
def test_a_device_that_this_onnxruntime_lacks_is_refused(with_providers, name):
    with_providers()
    with pytest.raises(DeviceError, match=session_module.PACKAGES[name]):
        Device.choose(name, "cpu")


def test_a_device_that_fails_to_start_is_said_loudly(tmp_path, caplog):
    """What an onnxruntime with CUDA but without its libraries does: it goes on with the CPU."""
    path = identity_graph(tmp_path / "identity.onnx")
    caplog.set_level(logging.WARNING)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        session = open_session(path, Device("cuda", "cuda"))
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert "identity.onnx: cuda failed to start, running on the CPU" in caplog.text


def test_a_device_that_breaks_while_it_starts_leaves_stdout_alone(
    tmp_path, monkeypatch, caplog, capsys
):
    """onnxruntime's own fallback prints there, into the middle of the JSON."""
    real = ort.InferenceSession

    def broken(path, options, providers, **rest):
        if providers[0] != "CPUExecutionProvider":
            raise RuntimeError("CUDA driver version is insufficient\nat line 3")
        return real(path, options, providers=providers, **rest)

    monkeypatch.setattr(ort, "InferenceSession", broken)
    session = open_session(identity_graph(tmp_path / "identity.onnx"), Device("auto", "cuda"))
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert "running on the CPU (CUDA driver version is insufficient)" in caplog.text
    assert capsys.readouterr().out == ""


# --- graphs ---------------------------------------------------------------------------------


def identity_graph(path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(helper.make_graph([node], "identity", [x], [y]), path)


def save(graph, path):
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_a_missing_graph(tmp_path):
    with pytest.raises(ModelFilesError, match=r"gone\.onnx: not there"):
        open_session(tmp_path / "gone.onnx", CPU)


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x0a\x12"])
def test_a_damaged_graph(tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFilesError, match=r"bad\.onnx: onnxruntime cannot open it"):
        open_session(path, CPU)


def test_inputs_are_checked_against_the_config(tmp_path):
    path = identity_graph(tmp_path / "identity.onnx")
    session = open_session(path, CPU, n_threads=1)
    check_inputs(session, path, {"x": (None, 3)})
    with pytest.raises(ModelFilesError, match="has no input y"):
        check_inputs(session, path, {"y": (None,)})
    with pytest.raises(ModelFilesError, match=r"input x is \['batch', 3\].* wants \[None, 4\]"):
        check_inputs(session, path, {"x": (None, 4)})
    with pytest.raises(ModelFilesError, match="input x"):
        check_inputs(session, path, {"x": (None, None, 3)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_broke(bad):
    fine = np.ones((2, 2), np.float32)
    assert ensure_finite(fine, "the logits") is fine
    with pytest.raises(ModelNumbersError, match="the logits came out as NaN or infinity"):
        ensure_finite(np.array([0, bad], np.float32), "the logits")


# --- stopping -------------------------------------------------------------------------------


def endless_graph(path):
    """Counts for 2^60 rounds."""
    integer, boolean = TensorProto.INT64, TensorProto.BOOL
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["sum", "round"], ["next"]),
        ],
        "body",
        [value("round", integer, []), value("go", boolean, []), value("sum", integer, [])],
        [value("go_on", boolean, []), value("next", integer, [])],
    )
    loop = helper.make_node("Loop", ["rounds", "", "start"], ["total"], body=body)
    inputs = [value("rounds", integer, []), value("start", integer, [])]
    return save(helper.make_graph([loop], "endless", inputs, [value("total", integer, [])]), path)


def test_a_run_is_stopped_inside_the_graph(tmp_path):
    session = open_session(endless_graph(tmp_path / "endless.onnx"), CPU, n_threads=1)
    cancellation, options = Cancellation(), ort.RunOptions()
    feeds = {"rounds": np.array(2**60), "start": np.array(0)}
    timer = threading.Timer(0.05, cancellation.cancel)
    timer.start()
    with pytest.raises(Cancelled), cancellation.watch(options):
        session.run(["total"], feeds, options)  # would take centuries
    timer.join()
    assert cancellation.cancelled
    few = {**feeds, "rounds": np.array(4)}
    assert session.run(["total"], few, ort.RunOptions()) == [6], "the session is still good"


def test_what_was_cancelled_does_not_begin():
    cancellation = Cancellation()
    cancellation.cancel()
    cancellation.cancel()
    with pytest.raises(Cancelled), cancellation.watch(ort.RunOptions()):
        pytest.fail("began all the same")


def test_errors_of_a_run_that_nobody_cancelled_stay_what_they_are():
    cancellation = Cancellation()
    with pytest.raises(RuntimeError, match="broken"), cancellation.watch(ort.RunOptions()):
        raise RuntimeError("broken")
    assert cancellation._running == []


def test_a_device_that_runs_out_of_memory_is_told_in_one_line(tmp_path):
    """A real graph that asks for 4 PB; what a full GPU says goes the same way."""
    sizes = helper.make_tensor_value_info("sizes", TensorProto.INT64, [1])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["sizes"], ["out"])], "greedy", [sizes], [out]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    greedy = ort.InferenceSession(model.SerializeToString())
    options = ort.RunOptions()
    with (
        pytest.raises(ModelMemoryError, match="out of memory"),
        Cancellation().watch(options),
    ):
        greedy.run(None, {"sizes": np.array([2**50])}, options)
