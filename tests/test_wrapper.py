"""scifm.sh: what it runs and when, with a Python and pip that only note what they are asked; nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(os.name != "posix", reason="scifm.sh is a POSIX shell script")

# Stands for every interpreter. `-m venv DIR` makes DIR/bin/python a copy of itself; every other `-m` call is written
# to the log and answered as files in $FAKE say: fail-<module> makes it fail, slow makes pip wait.
FAKE_PYTHON = r"""#!/bin/sh
log() { printf '%s\n' "$*" >>"$FAKE/log"; }
case $1 in
-c)
    case $2 in
    *ensurepip*) [ ! -e "$FAKE/no-venv" ] || { echo "lacks the venv module (No module named 'ensurepip')"; exit 1; } ;;
    *specifier*) [ -e "$FAKE/has-torch" ] ;;
    *print*) echo "Python 3.12.0" ;;
    esac
    ;;
-m)
    module=$2; shift 2
    case $module in
    venv)
        log "venv $1"
        [ ! -e "$FAKE/fail-venv" ] || exit 1
        mkdir -p "$1/bin"; cp "$0" "$1/bin/python"
        printf '#!/bin/sh\nprintf "scifm in %%s:" "$(pwd)"; printf " <%%s>" "$@"; echo\n' >"$1/bin/scifm"
        chmod +x "$1/bin/scifm"
        ;;
    pytest) printf 'pytest in %s:' "$(pwd)"; printf ' <%s>' "$@"; echo ;;
    uv)
        log "uv $*"
        [ ! -e "$FAKE/fail-uv" ] || exit 1
        ;;
    pip)
        log "pip $*"
        case "$*" in
        *" -e "*)
            [ ! -e "$FAKE/slow" ] || { : >"$FAKE/began"; sleep 3; log "pip ended"; }
            [ ! -e "$FAKE/fail-checkout" ] || exit 1
            ;;
        esac
        ;;
    esac
    ;;
esac
"""


class Checkout:
    """A copy of scifm.sh with a fake Python before all others on PATH."""

    def __init__(self, folder: Path):
        self.home = folder / "a check out"
        self.fake = folder / "fake"
        self.tools = folder / "bin"
        for made in (self.home, self.fake, self.tools):
            made.mkdir()
        shutil.copy(ROOT / "scifm.sh", self.home)
        shutil.copy(ROOT / "pyproject.toml", self.home)
        self.tool("python3", FAKE_PYTHON)
        self.tool("nvidia-smi", "#!/bin/sh\nexit 1\n")
        self.tool("uname", "#!/bin/sh\necho Linux\n")
        self.env = {**os.environ, "PATH": f"{self.tools}:{os.environ['PATH']}", "FAKE": str(self.fake)}
        self.env.pop("PYTHON", None)

    def tool(self, name: str, text: str) -> Path:
        path = self.tools / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def set(self, *names: str) -> None:
        for old in self.fake.iterdir():
            if old.name != "log":
                old.unlink()
        for name in names:
            (self.fake / name).touch()

    def start(self, *words: str, **options) -> subprocess.Popen[str]:
        options = {"cwd": self.home, "env": self.env, "script": self.home / "scifm.sh", **options}
        command = [str(options.pop("script")), *words]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, **pipes, **options)

    def call(self, *words: str, **options) -> tuple[int, str, str]:
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def log(self) -> list[str]:
        """What was run since the last look."""
        log = self.fake / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def wait_for(self, name: str) -> None:
        for _ in range(400):
            if (self.fake / name).exists():
                return
            time.sleep(0.05)
        raise AssertionError(f"{name} never came")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


needs_no_gpu = pytest.mark.skipif(
    Path("/proc/driver/nvidia/version").exists(),
    reason="this machine has an NVIDIA driver, which the wrapper sees",
)


def test_first_call_sets_up_in_order_and_forwards(checkout):
    code, out, err = checkout.call("train", "a recipe.py", "--name", "*", "")
    assert code == 0, err
    assert out == f"scifm in {checkout.home}: <train> <a recipe.py> <--name> <*> <>\n"  # nothing else on stdout
    log = checkout.log()
    assert log[0].startswith("venv ") and "--upgrade pip" in log[1]
    assert log[-1].split()[-2:] == ["-e", "."]
    assert all("torch" not in line.split(" -e ")[0] or "torch>=" in line for line in log)
    assert any("torch>=2.6,<2.14" in line for line in log[2:-1])
    assert "making" in err and "installing" in err and "ready after" in err
    assert not (checkout.home / ".venv.lock").exists() and not (checkout.home / ".venv/scifm-busy").exists()


def test_second_call_runs_nothing_and_says_nothing(checkout):
    checkout.call("info")
    checkout.log()
    assert checkout.call("info") == (0, f"scifm in {checkout.home}: <info>\n", "")
    assert checkout.log() == []


@needs_no_gpu
def test_cpu_torch_is_looked_for_briefly_and_pip_takes_over_when_it_is_out_of_reach(checkout):
    checkout.call()
    uv = [line for line in checkout.log() if line.startswith("uv ")]
    assert ["--dry-run" in line for line in uv] == [True, False] and all("--torch-backend=cpu" in line for line in uv)
    shutil.rmtree(checkout.home / ".venv")
    checkout.set("fail-uv")
    code, _, err = checkout.call()
    log = checkout.log()
    assert code == 0 and "out of reach" in err
    assert sum(line.startswith("uv ") for line in log) == 1  # one look, no second attempt
    assert [line for line in log if line.startswith("pip ") and line.endswith("torch>=2.6,<2.14")]


@pytest.mark.parametrize("machine", ["gpu", "mac"])
def test_usual_torch_where_there_is_a_gpu_or_no_linux(checkout, machine):
    if machine == "gpu":
        checkout.tool("nvidia-smi", "#!/bin/sh\nexit 0\n")
    else:
        checkout.tool("uname", "#!/bin/sh\necho Darwin\n")
    _, _, err = checkout.call()
    log = checkout.log()
    assert not any(line.startswith("uv ") for line in log)
    assert any(line.endswith("torch>=2.6,<2.14") for line in log)
    assert ("GPU" in err) == (machine == "gpu")


def test_test_installs_its_tools_once_and_runs_pytest_at_the_root(checkout, tmp_path):
    checkout.call("info")
    checkout.log()
    checkout.set("has-torch")
    code, out, _ = checkout.call("test", "-k", "a or b", cwd=tmp_path)
    assert (code, out) == (0, f"pytest in {checkout.home}: <-k> <a or b>\n")
    assert [line.split()[-1] for line in checkout.log()] == [".[test]"]
    for words in (("test",), ("info",)):
        assert checkout.call(*words)[0] == 0 and checkout.log() == []


def test_changed_pyproject_installs_again_and_keeps_the_environment(checkout):
    checkout.call("info")
    checkout.set("has-torch")
    checkout.log()
    (checkout.home / "pyproject.toml").open("a").write("# changed\n")
    _, _, err = checkout.call("info")
    assert "pyproject.toml" in err and [line.split()[-2:] for line in checkout.log()] == [["-e", "."]]
    assert checkout.call("info")[2] == ""


def test_a_touched_but_unchanged_pyproject_installs_nothing(checkout):
    checkout.call("info")
    checkout.log()
    os.utime(checkout.home / "pyproject.toml", (2e9, 2e9))
    assert checkout.call("info")[2] == "" and checkout.log() == []


def test_a_moved_checkout_installs_again(checkout):
    checkout.call("info")
    checkout.home = checkout.home.rename(checkout.home.parent / "moved")
    checkout.log()
    code, out, err = checkout.call("info")
    assert code == 0 and "place of the checkout" in err and f"scifm in {checkout.home}" in out
    assert any(" -e " in line for line in checkout.log())


def test_from_any_folder_and_through_symbolic_links(checkout, tmp_path):
    checkout.call("info")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "one").symlink_to(checkout.home / "scifm.sh")
    (elsewhere / "two").symlink_to("one")
    for script in ("one", "two"):
        assert checkout.call("x", script=elsewhere / script, cwd=elsewhere)[:2] == (
            0,
            f"scifm in {elsewhere}: <x>\n",
        )
    assert not (elsewhere / ".venv").exists()


def test_failed_installation_leaves_no_stamp_and_goes_on_next_time(checkout):
    checkout.set("fail-checkout")
    code, out, err = checkout.call("info")
    assert code == 1 and out == "" and "could not install the dependencies" in err
    checkout.log()
    checkout.set("has-torch")
    code, out, err = checkout.call("info")
    assert code == 0 and "scifm in" in out
    assert [line.split()[-2:] for line in checkout.log()] == [["-e", "."]]  # .venv and torch were kept


@pytest.mark.parametrize("how", ["kill -9 of both", "kill -9 of the wrapper", "terminate"])
def test_interrupted_set_up_starts_over(checkout, how):
    checkout.set("slow")
    process = checkout.start("info", start_new_session=True)
    checkout.wait_for("began")
    if how == "kill -9 of both":
        os.killpg(process.pid, 9)
    else:
        process.kill() if "wrapper" in how else process.terminate()
    process.wait(timeout=30)
    checkout.set()
    code, out, err = checkout.call("info")
    assert code == 0 and "scifm in" in out, err
    assert "interrupted" in err
    log = checkout.log()
    assert sum(line.startswith("venv ") for line in log) == 2
    if "wrapper" in how:  # the installer lived on, and nobody touched .venv until it had ended
        ended = log.index("pip ended")
        assert ended < max(n for n, line in enumerate(log) if line.startswith("venv "))
    assert checkout.call("info")[2] == ""


def test_set_up_that_died_while_making_the_environment_heals(checkout):
    checkout.set("fail-venv")
    code, _, err = checkout.call("info")
    assert code == 1 and "could not make the virtual environment" in err
    checkout.set()
    assert checkout.call("info")[0] == 0


def test_two_first_calls_at_once_install_once(checkout):
    checkout.set("slow")
    first = checkout.start("one")
    checkout.wait_for("began")
    second = checkout.start("two")
    outs = [p.communicate(timeout=60) for p in (first, second)]
    assert [p.returncode for p in (first, second)] == [0, 0]
    assert "<one>" in outs[0][0] and "<two>" in outs[1][0]
    assert "another set-up is at work" in outs[1][1]
    assert sum(line.startswith("venv ") for line in checkout.log()) == 1


def test_stale_lock_is_removed(checkout):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock = checkout.home / ".venv.lock"
    lock.mkdir()
    (lock / "owner").write_text(f"{gone.pid}\n")
    assert checkout.call("info")[0] == 0 and not lock.exists()


def test_an_environment_of_someone_else_is_used_or_left_alone_never_deleted(checkout):
    venv = checkout.home / ".venv"
    venv.mkdir()
    (venv / "precious").touch()
    code, _, err = checkout.call("info")
    assert code == 1 and "was not made by this script" in err and (venv / "precious").exists()
    (venv / "bin").mkdir()
    shutil.copy(checkout.tools / "python3", venv / "bin/python")
    shutil.copy(checkout.tools / "uname", venv / "bin/scifm")
    checkout.set("has-torch")
    assert checkout.call("info")[0] == 0 and (venv / "precious").exists()
    assert not any(line.startswith("venv ") for line in checkout.log())


def test_missing_or_unfit_python_says_how_to_get_one(checkout):
    only = checkout.home.parent / "only"
    only.mkdir()
    names = "sh dirname cat cksum mkdir mv rm readlink sed sleep date tr printf env tail"
    for name in names.split():
        real = shutil.which(name)
        if real:
            (only / name).symlink_to(real)
    env = {**checkout.env, "PATH": str(only)}
    code, out, err = checkout.call("info", env=env)
    assert code == 1 and out == "" and "Python 3.11 or newer" in err and "none" in err
    for system in ("sudo apt install python3 python3-venv", "dnf install", "brew install"):
        assert system in err
    assert not (checkout.home / ".venv").exists() and not (checkout.home / ".venv.lock").exists()
    old = only / "python3"
    old.write_text("#!/bin/sh\necho 'is Python 3.9, too old' >&2\nexit 1\n")
    old.chmod(0o755)
    assert "python3 is Python 3.9, too old" in checkout.call("info", env=env)[2]


def test_debian_without_ensurepip_is_told_before_anything_is_made(checkout):
    checkout.set("no-venv")
    env = {**checkout.env, "PYTHON": str(checkout.tools / "python3")}
    code, _, err = checkout.call("info", env=env)
    assert code == 1 and "ensurepip" in err and "python3-venv" in err and "will not do" in err
    assert not (checkout.home / ".venv").exists()


def test_PYTHON_names_the_interpreter_even_with_spaces_in_its_path(checkout):
    folder = checkout.home.parent / "my pythons"
    folder.mkdir()
    shutil.copy(checkout.tools / "python3", folder / "python 3.12")
    checkout.tool("python3", "#!/bin/sh\nexit 1\n")
    assert checkout.call("info", env={**checkout.env, "PYTHON": str(folder / "python 3.12")})[0] == 0


def test_the_real_check_accepts_this_python():
    """The line of Python in the script that tells a fit interpreter from an unfit one."""
    script = (ROOT / "scifm.sh").read_text()
    check = script.split("check='", 1)[1].split("'\n", 1)[0]
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert subprocess.run([sys.executable, "-c", check.replace("(3, 11)", "(9, 0)")]).returncode == 1
