"""Run AWS's own clients against a service started for them, each in an environment of its own.

make compat                 all
.venv/bin/python tests/compat/run.py cli v2
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from ridgeline_testing import (
    REPOSITORY,
    Service,
    end_tidily_when_told,
    read_env,
    running_service,
    shell_environment,
)

PINS = {
    "boto3": ["boto3==1.44.5"],
    "openai": ["openai==3.52.0"],
    "cli": ["awscli==1.46.2"],
    "v2": ["torch==2.13.0", "sagemaker==2.257.7"],
    "v3": ["torch==2.13.0", "sagemaker==3.27.0"],
}
HERE = Path(__file__).parent


def main() -> int:
    end_tidily_when_told()
    wanted = sys.argv[1:] or list(PINS)
    for name in wanted:
        install(name)
    failed = []
    with tempfile.TemporaryDirectory(prefix="ridgeline-compat-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        with running_service(Path(folder) / "data") as service:
            if "openai" in wanted:
                service.deploy("compat-chat", "smollm2-135m-instruct")
                service.deploy("compat-embed", "all-minilm-l6-v2")
            for name in wanted:
                for mode, variables in modes(name, service).items():
                    for what, words in commands(name).items():
                        if not passes(f"{what} ({mode})", words, name, home, variables):
                            failed.append(f"{what} ({mode})")
        assert list(home.rglob("*.pem")) == [], "nothing is written under the user's home"
    print("failed: " + ", ".join(failed) if failed else "all clients passed")
    return 1 if failed else 0


def install(name: str) -> None:
    folder = REPOSITORY / ".venvs" / name
    stamp = folder / ".pins"
    pins = PINS[name]
    if stamp.exists() and stamp.read_text() == "\n".join(pins):
        return
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin" / "pip"), "install", "-q"]
    # What a client leaves open takes pip minutes to choose.
    constraints = HERE / f"{name}-constraints.txt"
    if constraints.exists():
        install += ["-c", str(constraints)]
    for pin in pins:
        subprocess.run([*install, pin], check=True)
    stamp.write_text("\n".join(pins))


def modes(name: str, service: Service) -> dict[str, dict[str, str]]:
    """Environment variables by mode; the SDKs are run through the TLS proxy too."""
    result = {"ridgeline env": service.variables}
    if name in ("v2", "v3"):
        result["ridgeline env --proxy"] = read_env(service.data_dir, "--proxy")
    return result


def passes(what: str, words: list[str], name: str, home: Path, variables: dict[str, str]) -> bool:
    started = time.monotonic()
    done = subprocess.run(words, env=environment(name, home, variables), timeout=1200)
    outcome = "passed" if done.returncode == 0 else "FAILED"
    print(f"{what}: {outcome} in {time.monotonic() - started:.0f} s", flush=True)
    return done.returncode == 0


def commands(name: str) -> dict[str, list[str]]:
    """What is run for a client: its main script, then those that continue its name."""
    first = {"cli": "aws_cli.sh", "boto3": "boto3_client.py", "openai": "openai_client.py"}
    main = HERE / first.get(name, f"sdk_{name}.py")
    python = str(REPOSITORY / ".venvs" / name / "bin" / "python")
    interpreter = "sh" if main.suffix == ".sh" else python
    found = {}
    for script in (main, *sorted(HERE.glob(f"{main.stem}_*{main.suffix}"))):
        what = script.stem.removeprefix(main.stem).replace("_", " ")
        found[f"{name}{what}"] = [interpreter, str(script)]
    return found


def environment(name: str, home: Path, variables: dict[str, str]) -> dict[str, str]:
    path = f"{REPOSITORY / '.venvs' / name / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**shell_environment(), **variables, "PATH": path, "HOME": str(home)}


if __name__ == "__main__":
    sys.exit(main())
