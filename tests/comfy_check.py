"""Whether a ComfyUI has what the pack uses of it, name by name and call by call: nothing of either is imported.

    python -m wegen.tests.comfy_check [--list] CHECKOUT ...

A name (comfy_uses.py) is looked up where the checkout defines it: modules, re-exports, classes with their bases, `self.x =` in a method. A
call must bind to the signature that stands there, and a method of ours must take what the one that it overrides takes.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from pathlib import Path

import wegen
from wegen.tests.comfy_uses import Use, uses_of

PACK = Path(wegen.__file__).parent / "nodes"
EXTERNAL = object()  # something of another package, or a value: there, and not judged further


class Checkout:
    """A ComfyUI source tree."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.trees: dict[str, ast.Module | None] = {}
        version = self.tree("comfyui_version")
        self.version = (
            next((ast.literal_eval(part.value) for part in version.body if isinstance(part, ast.Assign)), "?") if version else "?"
        )

    def tree(self, module: str) -> ast.Module | None:
        """The parsed module; an empty one for a folder without __init__.py; None where there is none."""
        if module not in self.trees:
            place = self.folder.joinpath(*module.split("."))
            path = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
            empty = ast.Module([], []) if place.is_dir() else None
            self.trees[module] = empty if path is None else ast.parse(path.read_text(encoding="utf8"))
        return self.trees[module]

    def find(self, name: str) -> tuple[str, object] | None:
        """(module, ast node, or EXTERNAL) of a dotted name, or None. `Class()` is an instance."""
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            module = ".".join(parts[:cut])
            if "()" not in module and self.tree(module) is not None:
                found: tuple[str, object] | None = (module, self.tree(module))
                for part in parts[cut:]:
                    found = self.member(found, part.removesuffix("()")) if found else None
                return found
        return None

    def member(self, inside: tuple[str, object], name: str) -> tuple[str, object] | None:
        module, node = inside
        if isinstance(node, ast.Module):
            return self._in_body(module, node.body, name) or (
                (f"{module}.{name}", tree) if (tree := self.tree(f"{module}.{name}")) else None
            )
        if not isinstance(node, ast.ClassDef):
            return module, EXTERNAL
        for part in node.body:
            if isinstance(part, ast.FunctionDef | ast.ClassDef) and part.name == name:
                return module, part
        stores = {at.attr for at in ast.walk(node) if isinstance(at, ast.Attribute) and isinstance(at.ctx, ast.Store)}
        stores |= {at.id for part in node.body for at in ast.walk(part) if isinstance(at, ast.Name) and isinstance(at.ctx, ast.Store)}
        if name in stores:
            return module, EXTERNAL
        for base in node.bases:
            dotted = ast.unparse(base)
            if dotted in ("torch.nn.Module", "nn.Module", "Module"):
                import torch

                if hasattr(torch.nn.Module(), name):
                    return module, EXTERNAL
                continue
            held = self._in_body(module, self.trees[module].body, dotted.split(".")[0])
            for part in dotted.split(".")[1:]:
                held = self.member(held, part) if held else None
            if held and held[1] is EXTERNAL and dotted.split(".")[0] not in ("object",):
                return module, EXTERNAL
            if held and (found := self.member(held, name)):
                return found
        return (module, EXTERNAL) if name in dir(type) else None

    def _in_body(self, module: str, body: list[ast.stmt], name: str) -> tuple[str, object] | None:
        for part in body:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and part.name == name:
                return module, part
            if isinstance(part, ast.ImportFrom):
                for alias in part.names:
                    if (alias.asname or alias.name) == name:
                        package = (
                            module if (self.folder.joinpath(*module.split(".")) / "__init__.py").is_file() else module.rpartition(".")[0]
                        )
                        for _ in range(part.level - 1):
                            package = package.rpartition(".")[0]
                        source = ".".join(filter(None, (package if part.level else "", part.module or "")))
                        return self.find(f"{source}.{alias.name}") or (module, EXTERNAL)
            elif isinstance(part, ast.Import):
                for alias in part.names:
                    if (alias.asname or alias.name.split(".")[0]) == name:
                        whole = alias.name if alias.asname else name
                        return (whole, tree) if (tree := self.tree(whole)) is not None else (module, EXTERNAL)
            elif isinstance(part, ast.If | ast.Try | ast.With):
                inner = [*part.body, *getattr(part, "orelse", []), *(x for h in getattr(part, "handlers", []) for x in h.body)]
                if found := self._in_body(module, inner, name):
                    return found
            elif any(isinstance(at, ast.Name) and at.id == name and isinstance(at.ctx, ast.Store) for at in ast.walk(part)):
                return module, EXTERNAL
        return None

    def problem(self, use: Use) -> str | None:
        """Why a use would fail here, or None."""
        found = self.find(use.name)
        if found is None:
            return None if use.optional else "is not there"
        module, node = found
        method = "()" in use.name.rpartition(".")[0]
        if use.override is not None and isinstance(node, ast.FunctionDef):
            wanted = [arg.arg for arg in node.args.args][1:]
            ours = use.override
            if "*" not in ours and [name for name in ours if name not in ("*", "**")][: len(wanted)] != wanted and "**" not in ours:
                return f"takes ({', '.join(wanted)}) there, ours ({', '.join(ours)})"
        if use.call is None:
            return None
        if isinstance(node, ast.ClassDef):
            found, method = self.member(found, "__init__"), True
            node = found[1] if found else None
        if not isinstance(node, ast.FunctionDef):
            return None
        try:
            signature(node).bind(*[None] * (use.call[0] + method), **dict.fromkeys(use.call[1]))
        except TypeError as error:
            return f"cannot be called so: {error} (there: {ast.unparse(node.args)})"
        return None


def signature(function: ast.FunctionDef) -> inspect.Signature:
    """A function's parameters, as inspect has them."""
    kinds, a = inspect.Parameter, function.args
    positional = [*a.posonlyargs, *a.args]
    free = len(positional) - len(a.defaults)
    made = [
        kinds(
            arg.arg,
            kinds.POSITIONAL_ONLY if i < len(a.posonlyargs) else kinds.POSITIONAL_OR_KEYWORD,
            default=kinds.empty if i < free else None,
        )
        for i, arg in enumerate(positional)
    ]
    made += [kinds(a.vararg.arg, kinds.VAR_POSITIONAL)] if a.vararg else []
    made += [
        kinds(arg.arg, kinds.KEYWORD_ONLY, default=kinds.empty if default is None else None)
        for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)
    ]
    made += [kinds(a.kwarg.arg, kinds.VAR_KEYWORD)] if a.kwarg else []
    return inspect.Signature(made)


def check(folder: Path, uses: list[Use]) -> tuple[str, list[str]]:
    """(the checkout's version, what would fail there, a line each)."""
    checkout = Checkout(folder)
    if checkout.tree("comfy") is None or checkout.tree("folder_paths") is None:
        raise SystemExit(f"{folder} is no ComfyUI checkout: it has no comfy/ and folder_paths.py")
    found = ((use, checkout.problem(use)) for use in uses)
    return checkout.version, [f"nodes/{use.file}:{use.line}: {use} {problem}" for use, problem in found if problem]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="comfy_check", description="What the pack uses of ComfyUI, against checkouts of it.")
    parser.add_argument("checkout", nargs="*", type=Path)
    parser.add_argument("--list", action="store_true", help="print every name and call")
    args = parser.parse_args(argv)
    uses = uses_of(PACK)
    if args.list:
        sys.stdout.write("".join(f"{line}\n" for line in sorted({f"{use}{' (may be absent)' * use.optional}" for use in uses})))
    failed = False
    for folder in args.checkout:
        version, problems = check(folder, uses)
        failed |= bool(problems)
        names, calls = len({use.name for use in uses}), sum(use.call is not None for use in uses)
        sys.stdout.write(f"ComfyUI {version}: {names} names, {calls} calls, {len(problems)} would fail\n")
        sys.stdout.write("".join(f"  {problem}\n" for problem in problems))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
