"""Puts many mutants into one tree, each asleep until the environment variable names it ("mutant schemata", Untch, Offutt,
Harrold 1993). One build then serves them all, where each would need its own.

What cannot be written so (a function that is const, one whose type has several shapes) does not compile; `Schema.blame` says
which mutants an error is about, so that they can be left to a build of their own.
"""

import tree_sitter
import tree_sitter_rust

PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))
# The mutant that is awake, of all that are numbered in `lib.rs`.
MODULE = """
#[doc(hidden)]
pub mod mutant {
    pub fn number() -> u32 {
        static NUMBER: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {
            std::env::var("TIDEGATE_MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or_default()
        });
        *NUMBER
    }
    pub fn is(number: u32) -> bool {
        self::number() == number
    }
}
"""

class Region:
    """A stretch of a file in which mutants change something: bytes, and who does what."""

    def __init__(self, kind, node_range, parts=()):
        self.kind, self.range, self.parts = kind, node_range, parts
        self.mutants = []  # number, replacement

def offsets(text):
    """Where each line begins, in characters."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts

class Source:
    """One file with all of its regions."""

    def __init__(self, text):
        self.text, self.bytes = text, text.encode()
        self.lines = offsets(text)
        self.root = PARSER.parse(self.bytes).root_node
        self.regions = {}

    def byte(self, at):
        return len(self.text[: self.lines[at["line"] - 1] + at["column"] - 1].encode())

    def add(self, number, mutant):
        """False if this kind cannot sleep."""
        start, end = self.byte(mutant["span"]["start"]), self.byte(mutant["span"]["end"])
        region = self.region(mutant["genre"], start, end)
        if region is None:
            return False
        region = self.regions.setdefault((region.kind, region.range), region)
        region.mutants.append((number, mutant["replacement"]))
        return True

    def region(self, genre, start, end):
        if genre == "FnValue":
            return Region("body", (start, end))
        if genre == "MatchArmGuard":
            return Region("guard", (start, end))
        node = self.root.descendant_for_byte_range(start, end)
        while node is not None and node.type not in ("binary_expression", "compound_assignment_expr", "unary_expression"):
            node = node.parent
        if node is None:
            return None
        if node.type == "unary_expression":
            operand = node.children[-1]
            return Region("unary", (node.start_byte, node.end_byte), (operand.start_byte, operand.end_byte))
        left, operator, right = node.children[0], node.children[1], node.children[-1]
        if (operator.start_byte, operator.end_byte) != (start, end):
            return None
        parts = (left.start_byte, left.end_byte, start, end, right.start_byte, right.end_byte)
        return Region("operator", (node.start_byte, node.end_byte), parts)

    def render(self, pieces):
        """The file with its mutants asleep; says in `pieces` where each stands."""
        out = Output(pieces)
        outer_first = ["body", "guard", "operator", "unary"]
        order = sorted(
            self.regions.values(),
            key=lambda region: (region.range[0], -region.range[1], outer_first.index(region.kind)),
        )
        self.write(out, 0, len(self.bytes), order)
        return out.text()

    def write(self, out, start, end, order):
        """What stands there, with the regions that lie within."""
        at = start
        for index, region in enumerate(order):
            if region.range[0] < at or region.range[1] > end:
                continue
            inner = order[index + 1 :]
            out.push(self.bytes[at : region.range[0]])
            self.write_region(out, region, inner)
            at = region.range[1]
        out.push(self.bytes[at:end])

    def write_region(self, out, region, inner):
        start, end = region.range
        begun = out.length
        if region.kind == "body":
            for number, replacement in region.mutants:
                out.mark(number, f"if crate::mutant::is({number}) {{ return {replacement}; }}\n")
            self.write(out, start, end, inner)
        elif region.kind == "operator":
            left, right = region.parts[:2], region.parts[4:]
            own = self.bytes[region.parts[2] : region.parts[3]].decode()
            out.push(b"(match crate::mutant::number() {\n")
            for number, replacement in [*region.mutants, (None, own)]:
                arm = out.length
                out.push(f"{'_' if number is None else number} => {{ ".encode())
                self.write(out, *left, inner if number is None else [])
                out.push(f" {replacement} ".encode())
                self.write(out, *right, inner if number is None else [])
                out.push(b" }\n")
                if number is not None:
                    out.note(number, arm)
            out.push(b"})")
        elif region.kind == "unary":
            number, _ = region.mutants[0]
            out.push(f"(if crate::mutant::is({number}) {{ ".encode())
            self.write(out, *region.parts, [])
            out.push(b" } else { ")
            self.write(out, start, region.parts[0], [])
            self.write(out, *region.parts, inner)
            out.push(b" })")
        else:
            out.push(b"(match crate::mutant::number() {\n")
            for number, replacement in region.mutants:
                out.mark(number, f"{number} => {replacement},\n")
            out.push(b"_ => ")
            self.write(out, start, end, inner)
            out.push(b"\n})")
        for number, _ in region.mutants:
            out.note(number, begun)

class Output:
    def __init__(self, pieces):
        self.parts, self.length, self.pieces = [], 0, pieces

    def push(self, data):
        self.parts.append(data)
        self.length += len(data)

    def mark(self, number, text):
        begun = self.length
        self.push(text.encode())
        self.note(number, begun)

    def note(self, number, begun):
        self.pieces.append((self.length - begun, begun, self.length, number))

    def text(self):
        return b"".join(self.parts)

class Schema:
    """All files of a tree with their mutants."""

    def __init__(self, texts, mutants):
        """`mutants` by number, from 1."""
        self.texts, self.mutants = texts, mutants
        self.asleep, self.pieces = set(mutants), {}
        self.unable = set()

    def files(self):
        """File, and its bytes with all mutants that can sleep."""
        # All of them: one whose mutants were all left out is written as it was.
        sources = {mutant["file"]: Source(self.texts[mutant["file"]]) for mutant in self.mutants.values()}
        for number in sorted(self.asleep):
            name = self.mutants[number]["file"]
            source = sources[name]
            if not source.add(number, self.mutants[number]):
                self.leave({number})
        for name, source in sources.items():
            self.pieces[name] = []
            text = source.render(self.pieces[name])
            self.pieces[name].sort()
            wanted = {number for region in source.regions.values() for number, _ in region.mutants}
            self.leave(wanted - {piece[3] for piece in self.pieces[name]})
            yield name, text

    def leave(self, numbers):
        self.asleep -= numbers
        self.unable |= numbers

    def blame(self, name, start, end):
        """The mutants that an error in these bytes of a file is about: those of the smallest stretch around it."""
        around = [piece for piece in self.pieces.get(name, []) if piece[1] <= start and end <= piece[2]]
        if not around:
            around = [piece for piece in self.pieces.get(name, []) if piece[1] < end and start < piece[2]]
        if not around:
            return set()
        size = around[0][:3]
        return {piece[3] for piece in around if piece[:3] == size}
