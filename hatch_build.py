"""Compile the kernels when the package is built or installed.

The compiler is the machine's own or, where it has none, zig's, which is a Python package. Each
library is made for an instruction set, not for this machine, and the one that fits is chosen when
it is loaded, so a wheel serves all machines of its platform. If nothing compiles, the package is
built without kernels and runs in plain torch.
"""

from __future__ import annotations

import hashlib
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("ncp_agents") / "torch" / "kernels"
FLAGS = [
    "-O3",
    "-std=gnu11",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-signed-zeros",
    "-fno-math-errno",
    "-shared",
]
X86 = {"avx512": ["-march=x86-64-v4"], "avx2": ["-march=x86-64-v3"]}


def variants() -> dict[str, list[str]]:
    """Return the compiler's options for each library to make."""
    return X86 if platform.machine().lower() in ("x86_64", "amd64") else {"generic": []}


def compiler() -> list[str] | None:
    """Return the command of a C compiler, or None."""
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    return None


class CompileKernels(BuildHookInterface):
    """Adds the compiled kernels to the wheel."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what the build needs beside hatchling."""
        return [] if compiler() else ["ziglang>=0.13"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, in place of what an earlier build left."""
        for stale in (Path(self.root) / KERNELS).glob("cpu-*"):
            stale.unlink()
        made = []
        for variant, options in variants().items():
            library = compiled(Path(self.root), variant, options)
            if library is None:
                self.app.display_warning(f"no kernel for {variant}: plain torch will do its work")
            else:
                made.append(library)
        if made:
            build_data["artifacts"] += [f"/{path.as_posix()}" for path in made]
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag()}"


def digest(root: Path) -> str:
    """Return the digest of the sources, which is part of a library's name (see library.py)."""
    sources = sorted((root / KERNELS).glob("*.[ch]"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def compiled(root: Path, variant: str, options: list[str]) -> Path | None:
    """Return the library's path, relative to the root, or None if the compiler fails."""
    suffix = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
    library = KERNELS / f"cpu-{variant}-{digest(root)}.{suffix}"
    position = [] if sys.platform == "win32" else ["-fPIC"]
    sources = [path.as_posix() for path in sorted((root / KERNELS).glob("*.c"))]
    own = compiler()
    if own is None:
        options = [option.replace("x86-64-", "x86_64_") for option in options]  # zig's spelling
    command = own or [sys.executable, "-m", "ziglang", "cc"]
    unfinished = root / f"{library}.tmp"
    command = [*command, *FLAGS, *position, *options, *sources, "-o", str(unfinished)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        print(shlex.join(command), reason[:2000], sep="\n", file=sys.stderr)
        return None
    unfinished.replace(root / library)
    return library


def platform_tag() -> str:
    """Return the wheel's platform, such as linux_x86_64."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
