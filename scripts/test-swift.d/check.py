"""Checks Swift sources without a compiler: they parse, and what they use of the library exists as it is used.

Usage: check.py PACKAGE      a Swift package with Sources/*/Generated in place

For each call whose name is declared by the library the argument labels must be those of one of its declarations; each name of a
type must be declared by the library, by the package, or be known from Foundation. It is no type checker.
"""

import pathlib
import sys

import tree_sitter_swift
from tree_sitter import Language, Parser

# What the sources use of Swift and Foundation; a name that is in none of the places is an error.
KNOWN = set(
    """Target LinkerSetting Any AnyObject AsyncStream Bool Bundle CFDictionary CFString CFTypeRef Calendar Character CharacterSet Data Date DispatchQueue Double
    Element Error FileManager HTTPURLResponse ISO8601DateFormatter Int JSONSerialization NSLock NSNumber OSStatus Pipe Process
    ProcessInfo Result Self Sendable Set String Substring Task TaskGroup TimeInterval UInt UInt32 UInt64 URL URLRequest URLSession UUID XCTFail
    XCTUnwrap XCTestCase Continuation BufferingPolicy Void CheckedContinuation""".split()
)
# Their functions, and those that the sources are handed as arguments (holds, subscribe).
KNOWN_FUNCTIONS = set(
    """Package SecItemAdd SecItemCopyMatching SecItemDelete SecItemUpdate XCTAssertEqual XCTAssertTrue append appendingPathComponent
    async binaryTarget bufferingNewest checkCancellation contains createDirectory data date defer dropFirst finish global hasPrefix
    holds iOS jsonObject library lock macOS makeStream map merging min prefix readDataToEndOfFile removeItem run setValue split
    startOfDay string subscribe systemLibrary target terminate testTarget trimmingCharacters unlock unsafeFlags waitUntilExit
    withCheckedThrowingContinuation withTaskCancellationHandler yield""".split()
)

# Calls of Swift's own that have the name of one of the library's.
KNOWN_CALLS = {("resume", ("with",)), ("Data", ("_",))}


def walk(node):
    yield node
    for child in node.children:
        yield from walk(child)


def text(node):
    return node.text.decode()


def is_attribute(node):
    """The name in `@testable` or `@unchecked` is no type."""
    return any(parent is not None and parent.type == "attribute" for parent in (node.parent, node.parent and node.parent.parent))


class Sources:
    """What some files declare and use."""

    def __init__(self):
        self.types = set()
        self.calls = {}  # name -> set of tuples of labels
        self.used_types = []  # (file, line, name)
        self.used_calls = []  # (file, line, name, labels)

    def read(self, path, parser, problems):
        # The grammar does not know these two forms of the generator's; blanks of the same length keep lines and columns.
        source = path.read_bytes()
        attribute = b"@_documentation(visibility: private)"
        source = source.replace(attribute, b" " * len(attribute)).replace(b"{ () }", b"{    }")
        tree = parser.parse(source)
        for node in walk(tree.root_node):
            place = (path, node.start_point[0] + 1)
            if node.type == "ERROR" or node.is_missing:
                problems.append((*place, f"does not parse near {text(node)[:60]!r}"))
            elif node.type in ("class_declaration", "protocol_declaration", "typealias_declaration"):
                name = node.child_by_field_name("name")
                self.types.add(text(name).split("<")[0])
            elif node.type == "type_parameter":
                self.types.add(text(node).split(":")[0].strip())
            elif node.type in ("function_declaration", "protocol_function_declaration"):
                name = text(node.child_by_field_name("name")).strip("`")
                self.calls.setdefault(name, set()).add(self.labels_declared(node))
            elif node.type == "init_declaration":
                owner = node.parent.parent.child_by_field_name("name")
                if owner is not None:
                    self.calls.setdefault(text(owner), set()).add(self.labels_declared(node))
            elif node.type == "enum_entry":
                values = [child for child in node.children if child.type == "enum_type_parameters"]
                labels = tuple(
                    text(part)
                    for child in values
                    for part in child.children
                    if part.type == "simple_identifier" and part.next_sibling is not None and part.next_sibling.type == ":"
                )
                name = text(node.child_by_field_name("name")).strip("`")
                self.calls.setdefault(name, set()).add(tuple((label, False) for label in labels))
            elif node.type == "type_identifier" and not is_attribute(node):
                self.used_types.append((*place, text(node)))
            elif node.type == "call_expression":
                self.call(node, place)

    @staticmethod
    def labels_declared(node):
        """(label, has a default) of each parameter."""
        found = []
        for index, child in enumerate(node.children):
            if child.type == "parameter":
                names = [part for part in child.children if part.type == "simple_identifier"]
                default = index + 1 < len(node.children) and node.children[index + 1].type == "="
                found.append((text(names[0]), default))
        return tuple(found)

    def call(self, node, place):
        called = node.children[0]
        suffix = next((child for child in node.children if child.type == "call_suffix"), None)
        if suffix is None or text(suffix).startswith("["):
            return
        if called.type == "navigation_expression":
            called = called.child_by_field_name("suffix").child_by_field_name("suffix")
        elif called.type == "prefix_expression":
            called = called.children[-1]
        if called is None or called.type != "simple_identifier":
            return
        labels = []
        for part in walk(suffix):
            if part.type == "value_argument" and part.parent.parent == suffix:
                label = part.child_by_field_name("name")
                labels.append(text(label) if label is not None else "_")
        trailing = any(child.type == "lambda_literal" for child in suffix.children)
        self.used_calls.append((*place, text(called), tuple(labels), trailing))


def fits(used, declared, trailing):
    """The labels in order, with those left out that have a default; a trailing closure stands for the last."""
    index = 0
    wanted = declared[:-1] if trailing and declared else declared
    for label, default in wanted:
        if index < len(used) and used[index] == label:
            index += 1
        elif not default:
            return False
    return index == len(used)


def main():
    package = pathlib.Path(sys.argv[1])
    parser = Parser(Language(tree_sitter_swift.language()))
    problems = []
    library, own = Sources(), Sources()
    generated = sorted(package.glob("Sources/*/Generated/*.swift"))
    written = [path for path in sorted(package.glob("**/*.swift")) if path not in generated and ".build" not in path.parts]
    if not generated or not written:
        sys.exit("error: there is nothing to check; run scripts/build-swift first")
    for path in generated:
        library.read(path, parser, problems)
    for path in written:
        own.read(path, parser, problems)
    looked_up = 0
    for path, line, name in own.used_types:
        looked_up += 1
        if name not in library.types | own.types | KNOWN:
            problems.append((path, line, f"{name} is declared nowhere"))
    for path, line, name, labels, trailing in own.used_calls:
        if (name, labels) in KNOWN_CALLS or name in own.calls or name in own.types or name in library.types - set(library.calls):
            continue
        if name not in library.calls:
            if name not in KNOWN | KNOWN_FUNCTIONS:
                problems.append((path, line, f"{name}() is declared nowhere"))
            continue
        if not library.calls[name]:
            continue
        looked_up += 1
        if not any(fits(labels, declared, trailing) for declared in library.calls[name]):
            forms = sorted("(" + ", ".join(label for label, _ in form) + ")" for form in library.calls[name])
            problems.append((path, line, f"{name}({', '.join(labels)}) is not what the library has: {' or '.join(forms)}"))
    for path, line, what in problems:
        print(f"{path}:{line}: {what}", file=sys.stderr)
    if problems:
        sys.exit(f"error: {len(problems)} problems in the Swift sources")
    if looked_up < 50:
        sys.exit(f"error: only {looked_up} names were looked up; has the grammar's form changed?")
    print(f"{len(written)} Swift files parse, {looked_up} uses of types and calls exist")


main()
