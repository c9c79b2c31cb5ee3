"""What the pack uses of ComfyUI, collected by ast from its own files: names, calls with their arguments, methods that it overrides.

`optional`: behind a getattr with a default, a hasattr or an `except ImportError`; it may be absent. What hangs on a value whose class the
code does not say is not followed, except for VALUES.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

HOSTS = ("comfy", "comfy_api", "comfy_execution", "execution", "folder_paths", "latent_preview", "node_helpers", "nodes", "server")
PATCHER = "comfy.model_patcher.ModelPatcher"
VALUES = {  # file -> {expression: the class of its value}
    "host/memory.py": {"kind": PATCHER, "part.handle": f"{PATCHER}()"},
    "host/regional.py": {"model": f"{PATCHER}()", "out": f"{PATCHER}()"},
}
BASES = {"FromNothing": "comfy.model_sampling.EPS"}  # our class that is put before another at run time -> what it is put before


@dataclass(frozen=True)
class Use:
    """One use of ComfyUI: `name` is dotted; "()" behind a class means one of its instances."""

    file: str
    line: int
    name: str
    call: tuple[int, tuple[str, ...]] | None = None  # how many arguments by position, and those by name
    optional: bool = False
    override: tuple[str, ...] | None = None  # of a method of ours: its parameters by position, "*" and "**"

    def __str__(self) -> str:
        if self.call is None:
            return self.name
        return f"{self.name}({', '.join(['_'] * self.call[0] + [f'{name}=' for name in self.call[1]])})"


# --- what the pack uses


@dataclass
class Reader(ast.NodeVisitor):
    """The uses of one file."""

    file: str
    uses: list[Use] = field(default_factory=list)

    def read(self, tree: ast.Module) -> list[Use]:
        self.fixed = {expression: (name, False) for expression, name in VALUES.get(self.file, {}).items()}
        self.names: dict[str, tuple[str, bool]] = dict(self.fixed)  # expression -> (name in ComfyUI, whether it may be absent)
        self.own: set[str] = set()  # what our classes add to ComfyUI's
        self.optional = 0
        for _ in range(2):  # a name may be used above the line that gives it
            self.uses = []
            self.visit(tree)
        return list(dict.fromkeys(self.uses))

    def dotted(self, node: ast.AST) -> tuple[str, bool] | None:
        """(name in ComfyUI, whether it may be absent) of an expression."""
        if isinstance(node, ast.Name | ast.Attribute) and (known := self.names.get(ast.unparse(node))):
            return known
        if isinstance(node, ast.Attribute) and (inner := self.dotted(node.value)):
            return f"{inner[0]}.{node.attr}", inner[1]
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "sys.modules" and isinstance(node.slice, ast.Constant):
            return (str(node.slice.value), False) if str(node.slice.value).split(".")[0] in HOSTS else None
        if isinstance(node, ast.Call):
            return self._called(node)
        return None

    def _called(self, node: ast.Call) -> tuple[str, bool] | None:
        function, values = ast.unparse(node.func), [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args]
        if function == "sys.modules.get" and str(values[0]).split(".")[0] in HOSTS:
            return str(values[0]), False
        if function == "getattr" and len(values) > 1 and (inner := self.dotted(node.args[0])):
            name = f"{inner[0]}.{values[1]}"
            return (f"{inner[0]}()", False) if values[1] == "instance" else (name, inner[1] or len(values) > 2)
        if (inner := self.dotted(node.func)) and inner[0].rpartition(".")[2][:1].isupper():
            return f"{inner[0]}()", inner[1]
        return None

    def _use(self, node: ast.AST, name: str, optional: bool = False, **more) -> None:
        if not any(name == own or name.startswith(f"{own}.") for own in self.own):
            self.uses.append(Use(self.file, node.lineno, name, optional=optional or self.optional > 0, **more))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] in HOSTS:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                self.names[alias.asname or name] = (name, False)
                self._use(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level and (node.module or "").split(".")[0] in HOSTS:
            for alias in node.names:
                self.names[alias.asname or alias.name] = (f"{node.module}.{alias.name}", self.optional > 0)
                self._use(node, f"{node.module}.{alias.name}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before = dict(self.names)
        self.generic_visit(node)
        self.names = before | {name: held for name, held in self.names.items() if name.startswith("self.")}

    def visit_Try(self, node: ast.Try) -> None:
        forgiving = any(handler.type is not None and "ImportError" in ast.unparse(handler.type) for handler in node.handlers)
        self.optional += forgiving
        for part in node.body:
            self.visit(part)
        self.optional -= forgiving
        for part in (*node.handlers, *node.orelse, *node.finalbody):
            self.visit(part)

    def visit_If(self, node: ast.If) -> None:
        asked = isinstance(node.test, ast.Call) and ast.unparse(node.test.func) == "hasattr"
        self.visit(node.test)
        self.optional += asked
        for part in node.body:
            self.visit(part)
        self.optional -= asked
        for part in node.orelse:
            self.visit(part)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and len(target.elts) == len(node.value.elts):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for to, value in pairs:
                if isinstance(to, ast.Name | ast.Attribute) and ast.unparse(to) not in self.fixed:
                    self.names.pop(ast.unparse(to), None)
                    if found := self.dotted(value):
                        self.names[ast.unparse(to)] = found

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load) and ast.unparse(node) not in self.names and (found := self.dotted(node)):
            self._use(node, *found)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        inner = self.dotted(node.func)
        starred = any(isinstance(arg, ast.Starred) for arg in node.args) or any(word.arg is None for word in node.keywords)
        if inner and not starred:
            self._use(node, *inner, call=(len(node.args), tuple(word.arg for word in node.keywords if word.arg)))
        elif ast.unparse(node.func) == "getattr" and (found := self.dotted(node)) and not found[0].endswith("()"):
            self._use(node, *found)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.generic_visit(node)
        bases = [found[0] for base in node.bases if (found := self.dotted(base))] or [BASES[name] for name in (node.name,) if name in BASES]
        if not bases:
            return
        self.names[node.name] = (bases[-1], False)
        own = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        own |= {to.id for part in node.body if isinstance(part, ast.Assign) for to in part.targets if isinstance(to, ast.Name)}
        own |= {at.attr for at in ast.walk(node) if isinstance(at, ast.Attribute) and isinstance(at.ctx, ast.Store)}
        self.own |= {f"{bases[-1]}().{name}" for name in own if not name.startswith("__")}
        for method in (part for part in node.body if isinstance(part, ast.FunctionDef)):
            found = [at for at in ast.walk(method) if isinstance(at, ast.Attribute)]
            for at in found:
                if ast.unparse(at.value) == "self" and at.attr not in own and len(bases) == len(node.bases or bases):
                    self._use(at, f"{bases[-1]}().{at.attr}")  # where another base is not ComfyUI's, it may give it
            asks = any(ast.unparse(at) == f"super().{method.name}" for at in found)  # else it may be ours alone
            names = [arg.arg for arg in method.args.args][1:] + ["*"] * bool(method.args.vararg) + ["**"] * bool(method.args.kwarg)
            name = f"{bases[-1]}().{method.name}"
            self.uses.append(Use(self.file, method.lineno, name, optional=not asks, override=tuple(names)))


def uses_of(folder: Path) -> list[Use]:
    """Every use of ComfyUI in a folder of Python files."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        found += Reader(name).read(ast.parse(path.read_text(encoding="utf8"), name))
    return found
