"""Source -> wheel, by PEP 517 and the PyPA `build` library, in an environment of its own on this machine's Python.

The one thing of a build that runs other people's code. It sees a copy of the source, an empty home, and of the
environment what compilers and downloads need; pip, which fetches what the backend requires, has its own configuration.
A result is kept under a digest of everything that went into it but the versions of what pip found.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import build
import pyproject_hooks
from build.env import DefaultIsolatedEnv

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import OfflineError, PackageError
from ociforge.events import Notify, StageStarted, ignore
from ociforge.pypi import requirements, sources
from ociforge.pypi.location import Repository, Tree
from ociforge.pypi.repack import Relocation, repack
from ociforge.pypi.tags import Filename
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from ociforge.pypi.fetch import Archive, Cache
    from ociforge.pypi.project import Project
    from ociforge.pypi.requirements import Requirements

__all__ = ["Builder"]

_FORMAT = 1  # raising it forgets all results
_EARLIEST = 315_532_800  # 1980-01-01, below which zip archives and so some backends cannot go
# Of the environment, what compilers, linkers and downloads need.
_PASSED = """
    AR ARFLAGS AS CARGO_HOME CC CFLAGS CMAKE_GENERATOR CMAKE_PREFIX_PATH CPATH CPP CPPFLAGS CURL_CA_BUNDLE CXX CXXFLAGS
    F77 F90 FC FFLAGS HTTPS_PROXY HTTP_PROXY LD LDFLAGS LD_LIBRARY_PATH LIBRARY_PATH MAKEFLAGS NM NO_PROXY PATH
    PKG_CONFIG PKG_CONFIG_PATH RANLIB REQUESTS_CA_BUNDLE RUSTFLAGS RUSTUP_HOME SSL_CERT_DIR SSL_CERT_FILE TMPDIR
    all_proxy http_proxy https_proxy no_proxy
"""
# Of these, how things are reached, and where they are put: no matter for the result.
_IMMATERIAL = """
    CURL_CA_BUNDLE HTTPS_PROXY HTTP_PROXY NO_PROXY PATH REQUESTS_CA_BUNDLE SSL_CERT_DIR SSL_CERT_FILE TMPDIR
    all_proxy http_proxy https_proxy no_proxy
"""
_VERSION_VARIABLES = ("SETUPTOOLS_SCM_PRETEND_VERSION", "PBR_VERSION")


class Builder:
    """Builds wheels one after another: compilers use all processors themselves.

    `cache` keeps wheels, `results` says which belongs to what; `staging` is an empty directory for copies and
    environments. `environ` is the process's environment and `mtime` becomes SOURCE_DATE_EPOCH, both arguments here.
    What builds require comes from `offered` alone, if that is given, and else from where pip is configured to look.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        results: Path,
        staging: Path,
        environ: Mapping[str, str],
        mtime: int,
        offered: Requirements | None = None,
        notify: Notify = ignore,
    ) -> None:
        self._cache = cache
        self._results = results
        self._staging = staging
        self._environ = environ
        self._epoch = max(mtime, _EARLIEST)
        self._offered = offered
        self._notify = notify
        self._count = 0

    def wheel(self, project: Project) -> Archive:
        """The wheel of `project`, from the cache when the same source was built before. Raises PackageError."""
        self._count += 1
        work = self._staging.resolve() / f"build-{self._count}"
        if isinstance(project.source, Tree):
            tree = work / "source" / project.name
            tree.parent.mkdir(parents=True)
            identity = str(sources.copy_tree(project.source.path, tree))
        else:
            tree = None
            identity = _identity(project.source)
        result = self._result(project, identity)
        if found := self._known(result):
            return found
        self._notify(StageStarted(f"building {project}"))
        if tree is None:
            tree = self._obtain(project, work)
        return self._remember(result, self._built(project, tree, work))

    def find(self, project: Project) -> Archive | None:
        """The wheel of a commit or source distribution that was built before; None for a tree, whose code tells."""
        source = project.source
        return None if isinstance(source, Tree) else self._known(self._result(project, _identity(source)))

    def requirements(self, project: Project) -> list[Path]:
        """Wheels of all that building `project` requires, in `staging`, by name. Raises PackageError."""
        self._count += 1
        work = self._staging.resolve() / f"build-{self._count}"
        if isinstance(project.source, Tree):
            tree = work / "source" / project.name
            tree.parent.mkdir(parents=True)
            sources.copy_tree(project.source.path, tree)
        else:
            tree = self._obtain(project, work)
        self._notify(StageStarted(f"gathering what building {project} requires"))
        with self._isolated(project, tree, work) as (environment, builder):
            python, house = environment.python_executable, work / "wheels"
            offered = None if self._offered is None else work / "offered"
            if self._offered is not None and offered is not None:
                self._offered.offer(offered)
            requirements.gather(python, sorted(builder.build_system_requires), house, offered=offered)
            requirements.gather(python, sorted(builder.get_requires_for_build(project.kind)), house, offered=offered)
        return sorted(house.glob("*.whl"))

    def _obtain(self, project: Project, work: Path) -> Path:
        """The source code below `work`."""
        match project.source:
            case Repository() as repository:
                tree = work / "source" / project.name
                sources.check_out(repository, tree, self._environ, offline=self._offered is not None)
            case Tree():
                raise AssertionError("copied already")
            case archive:
                tree = sources.unpack(archive.path, archive.filename, work / "source")
        return sources.subdirectory(tree, project.subdirectory, str(project))

    def _built(self, project: Project, tree: Path, work: Path) -> Archive:
        wheel = self._run_backend(project, tree, work)
        relocation = None
        if project.image is not None and isinstance(project.source, Tree):
            relocation = Relocation(tree=tree, image=project.image, original=project.source.path)
        if relocation is not None and not Filename.parse(wheel.name).pure:
            raise PackageError(
                f"{project} cannot stay editable: it has compiled parts",
                "take it as an ordinary install, which is built for the image",
            )

        def write(sink: BinaryIO) -> Digest:
            repack(wheel, sink, host=work, relocation=relocation)
            sink.seek(0)
            return Digest.of_stream(sink)

        return self._cache.store(wheel.name, write)

    def _run_backend(self, project: Project, tree: Path, work: Path) -> Path:
        with self._isolated(project, tree, work) as (environment, builder):
            install = self._installer(environment, work)
            install(builder.build_system_requires)
            install(builder.get_requires_for_build(project.kind))
            wheel = Path(builder.build(project.kind, work / "dist"))
        if not wheel.is_file():
            raise PackageError(f"building {project}: the backend says that it wrote `{wheel.name}`, and did not")
        return wheel

    @contextlib.contextmanager
    def _isolated(
        self, project: Project, tree: Path, work: Path
    ) -> Iterator[tuple[DefaultIsolatedEnv, build.ProjectBuilder]]:
        """An environment to build in, and who calls the backend there."""
        home = work / "home"
        home.mkdir()
        runner = partial(_run, environ=self._backend_environment(work, home))
        offline = self._offered is not None
        with _translated(project, offline=offline), DefaultIsolatedEnv(path=str(work / "environment")) as environment:
            yield environment, build.ProjectBuilder.from_isolated_env(environment, tree, runner)

    def _installer(self, environment: DefaultIsolatedEnv, work: Path) -> Callable[[Collection[str]], None]:
        if self._offered is None:
            return environment.install
        self._offered.offer(work / "wheels")
        return partial(requirements.install, environment.python_executable, house=work / "wheels")

    def _passed(self) -> dict[str, str]:
        names = _PASSED.split()
        return {k: v for k, v in self._environ.items() if k in names or k.startswith(_VERSION_VARIABLES)}

    def _backend_environment(self, work: Path, home: Path) -> dict[str, str]:
        passed = self._passed()
        users = Path(self._environ.get("HOME", "/nonexistent"))
        for variable, directory in (("CARGO_HOME", users / ".cargo"), ("RUSTUP_HOME", users / ".rustup")):
            if directory.is_dir():
                passed.setdefault(variable, str(directory))
        for flags in ("CFLAGS", "CXXFLAGS"):
            # Debug information and assertions name source files.
            passed[flags] = f"{passed.get(flags, '')} -ffile-prefix-map={work}=build".strip()
        return passed | {
            **sources.GIT_TRUST,
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": str(self._epoch),
            "TZ": "UTC",
        }

    def _key(self, project: Project, identity: str) -> Digest:
        facts = [
            _FORMAT,
            project.kind,
            identity,
            project.subdirectory,
            project.image,
            self._epoch,
            platform.python_version(),
            sys.abiflags,
            platform.machine(),
            platform.libc_ver(),
            sorted((k, v) for k, v in self._passed().items() if k not in _IMMATERIAL.split()),
        ]
        return Digest.of(json.dumps(facts).encode())

    def _result(self, project: Project, identity: str) -> Path:
        """Where the wheel of the project is told when it was built."""
        return self._results / f"{self._key(project, identity).hex}.json"

    def _known(self, result: Path) -> Archive | None:
        try:
            document = json.loads(result.read_text(encoding="utf-8"))
            return self._cache.find(Digest.parse(document["wheel"]), document["filename"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DigestError):
            return None

    def _remember(self, result: Path, archive: Archive) -> Archive:
        text = json.dumps({"filename": archive.filename, "wheel": str(archive.digest)}, sort_keys=True)
        try:
            self._results.mkdir(parents=True, exist_ok=True)
            part = result.with_name(f".{result.name}.{os.getpid()}.part")
            part.write_text(text, encoding="utf-8")
            part.replace(result)
        except OSError as error:
            raise PackageError(f"cannot write `{result}`: {error.strerror}") from error
        return archive


def _identity(source: Repository | Archive) -> str:
    if isinstance(source, Repository):
        return f"{redacted(source.url)} {source.commit} {source.lfs}"
    return str(source.digest)


def _run(
    command: Sequence[str],
    cwd: str | None = None,
    extra_environ: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str],
) -> None:
    """Call one of the backend's hooks, as `build` asks for it; the output goes with the error."""
    subprocess.run(
        command,
        cwd=cwd,
        env={**environ, **(extra_environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )


@contextlib.contextmanager
def _translated(project: Project, *, offline: bool) -> Iterator[None]:
    """Whatever a build can fail with, as a PackageError with the last of what was said."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on pyproject.toml, which is its author's
            yield
    except subprocess.CalledProcessError as error:
        if offline:
            raise OfflineError(
                f"building {project}: what its build requires is not in the store\n{sources.scrubbed(error.stderr)}",
                "fetch it where there is a network: `ociforge fetch`",
            ) from error
        raise PackageError(
            f"building {project}: what its build requires cannot be installed\n{sources.scrubbed(error.stderr)}",
            "check `build-system.requires` in its `pyproject.toml`, and pip's configuration",
        ) from error
    except build.BuildBackendException as error:
        raise _backend_failure(project, error) from error
    except (build.BuildException, build.FailedProcessError) as error:
        raise PackageError(f"building {project}: {error}") from error
    except OSError as error:
        raise PackageError(f"building {project}: {error.strerror}: `{error.filename}`") from error
    except TypeError as error:
        raise PackageError(
            f"building {project}: the backend gave an answer of the wrong type: {error}",
            "look at the build backend that its `pyproject.toml` names",
        ) from error
    except UnicodeDecodeError as error:
        raise PackageError(f"building {project}: its `pyproject.toml` is not UTF-8: {error}") from error
    except ValueError as error:
        raise PackageError(f"building {project}: {error}") from error


def _backend_failure(project: Project, error: build.BuildBackendException) -> PackageError:
    inner = error.exception
    if isinstance(inner, pyproject_hooks.HookMissing):
        return PackageError(
            f"building {project}: its backend cannot make editable wheels", "take it as an ordinary install"
        )
    if isinstance(inner, subprocess.CalledProcessError):
        return PackageError(f"building {project}: the backend failed\n{sources.scrubbed(inner.output)}")
    if isinstance(inner, pyproject_hooks.BackendUnavailable):
        return PackageError(f"building {project}: {error}\n{sources.scrubbed(inner.traceback)}")
    return PackageError(f"building {project}: {error}")
