# cython: auto_pickle=False, wraparound=True
"""CRDTs: the replicated state behind every CRDT entity. crdt.pyi documents it.

A first form of plain Python objects: stores are the tables of crdt.pyi as dicts, the user function's view is a second
plain value, deltas name dots only.
"""

GCOUNTER, PNCOUNTER, GSET, ORSET, LWWREGISTER, FLAG, ORMAP, VOTE = range(1, 9)
NAMES = ("nothing", "GCounter", "PNCounter", "GSet", "ORSet", "LWWRegister", "Flag", "ORMap", "Vote")
FORMAT = 1
MAX_COUNT = (1 << 44) - 1
MAX_SUM = 1 << 112
MAX_LEVELS = 64
COUNTERS = (GCOUNTER, PNCOUNTER)
SETS = (GSET, ORSET)
live = [0]


class CrdtError(ValueError):
    """Base. The text names what was wrong."""


class Rejected(CrdtError):
    """A user function's delta that may not be applied."""


class Malformed(CrdtError):
    """Bytes that are no CrdtDelta, no replica's delta and no state, or are beyond a bound."""


class Bounds:
    def __init__(self, *, max_state_size=64 * 1024 * 1024, max_depth=32, max_replicas=4096, max_cloud=100_000):
        self.max_state_size = max_state_size
        self.max_depth = max_depth
        self.max_replicas = max_replicas
        self.max_cloud = max_cloud


# --- causal context --------------------------------------------------------------------------------------------------

class Context:
    def __init__(self):
        self.prefix = {}
        self.cloud = {}
        self.pruned = set()

    def copy(self):
        other = Context()
        other.prefix = dict(self.prefix)
        other.cloud = {replica: set(dots) for replica, dots in self.cloud.items()}
        other.pruned = set(self.pruned)
        return other

    def __contains__(self, dot):
        replica, n = dot
        return (
            replica in self.pruned or n <= self.prefix.get(replica, 0) or n in self.cloud.get(replica, ())
        )

    def last(self, replica):
        return max(self.prefix.get(replica, 0), max(self.cloud.get(replica, (0,)), default=0))

    def add(self, dot):
        replica, n = dot
        if dot not in self:
            self.cloud.setdefault(replica, set()).add(n)
            self.compact(replica)

    def compact(self, replica):
        prefix = self.prefix.get(replica, 0)
        cloud = {n for n in self.cloud.get(replica, ()) if n > prefix}
        while prefix + 1 in cloud:
            prefix += 1
            cloud.discard(prefix)
        if prefix:
            self.prefix[replica] = prefix
        self.cloud.pop(replica, None)
        if cloud:
            self.cloud[replica] = cloud

    def join(self, other):
        for replica, n in other.prefix.items():
            self.prefix[replica] = max(n, self.prefix.get(replica, 0))
        for replica, cloud in other.cloud.items():
            self.cloud.setdefault(replica, set()).update(cloud)
        self.pruned |= other.pruned
        for replica in self.pruned:
            self.prefix.pop(replica, None)
            self.cloud.pop(replica, None)
        for replica in list(self.cloud):
            self.compact(replica)

    def dump(self):
        return {
            replica: (self.prefix.get(replica, 0), tuple(sorted(self.cloud.get(replica, ()))))
            for replica in sorted(set(self.prefix) | set(self.cloud))
        }


# --- stores ----------------------------------------------------------------------------------------------------------

def new_store(kind):
    return set() if kind == FLAG else {}


def copy_store(kind, store):
    if kind == FLAG:
        return set(store)
    if kind in SETS:
        return {element: set(dots) for element, dots in store.items()}
    if kind == ORMAP:
        return {key: [set(dots), copy_store(key[1], below)] for key, (dots, below) in store.items()}
    return dict(store)


def join_dots(mine, theirs, my_context, their_context):
    return (
        (mine & theirs)
        | {dot for dot in mine if dot not in their_context}
        | {dot for dot in theirs if dot not in my_context}
    )


def join_entry(replica, mine, theirs, my_context, their_context):
    """Of the entries of one replica in a counter, register or vote."""
    kept = []
    if mine is not None and (mine == theirs or (replica, mine[0]) not in their_context):
        kept.append(mine)
    if theirs is not None and (replica, theirs[0]) not in my_context:
        kept.append(theirs)
    return max(kept, key=lambda entry: entry[0], default=None)


def join(kind, mine, theirs, my_context, their_context):
    if kind == FLAG:
        return join_dots(mine, theirs, my_context, their_context)
    joined = {}
    nothing = set()
    for key in mine.keys() | theirs.keys():
        if kind in SETS:
            dots = join_dots(mine.get(key, nothing), theirs.get(key, nothing), my_context, their_context)
            if dots:
                joined[key] = dots
        elif kind == ORMAP:
            my_dots, below = mine.get(key) or (nothing, new_store(key[1]))
            their_dots, others = theirs.get(key) or (nothing, new_store(key[1]))
            dots = join_dots(my_dots, their_dots, my_context, their_context)
            if dots:
                joined[key] = [dots, join(key[1], below, others, my_context, their_context)]
        else:
            entry = join_entry(key, mine.get(key), theirs.get(key), my_context, their_context)
            if entry is not None:
                joined[key] = entry
    return joined


def all_dots(kind, store):
    """Every dot below."""
    if kind == FLAG:
        yield from store
    elif kind in SETS:
        for dots in store.values():
            yield from dots
    elif kind == ORMAP:
        for (_, below_kind), (dots, below) in store.items():
            yield from dots
            yield from all_dots(below_kind, below)
    else:
        for replica, entry in store.items():
            yield replica, entry[0]


def without(kind, store, gone):
    """The store without the dots `gone`, and whether anything of it is left."""
    if kind == FLAG:
        return {dot for dot in store if dot not in gone}
    if kind in SETS:
        left = {element: {dot for dot in dots if dot not in gone} for element, dots in store.items()}
        return {element: dots for element, dots in left.items() if dots}
    if kind == ORMAP:
        kept = {}
        for key, (dots, below) in store.items():
            dots = {dot for dot in dots if dot not in gone}
            if dots:
                kept[key] = [dots, without(key[1], below, gone)]
        return kept
    return {replica: entry for replica, entry in store.items() if (replica, entry[0]) not in gone}


def only(kind, store, wanted):
    """What of the store hangs on the dots of a function."""
    if kind == FLAG:
        return {dot for dot in store if wanted(dot)}
    if kind in SETS:
        left = {element: {dot for dot in dots if wanted(dot)} for element, dots in store.items()}
        return {element: dots for element, dots in left.items() if dots}
    if kind == ORMAP:
        kept = {}
        for key, (dots, below) in store.items():
            dots = {dot for dot in dots if wanted(dot)}
            if dots:
                kept[key] = [dots, only(key[1], below, wanted)]
        return kept
    return {replica: entry for replica, entry in store.items() if wanted((replica, entry[0]))}


def winner(store):
    best = None
    for replica, (_, timestamp, value) in store.items():
        rank = (timestamp, -replica, value)
        if best is None or rank > best:
            best = rank
    return best


def visible(store):
    """Per key of a map: its type."""
    best = {}
    for (key, kind), (dots, _) in store.items():
        rank = max((n, replica) for replica, n in dots)
        if key not in best or rank > best[key][0]:
            best[key] = (rank, kind)
    return {key: kind for key, (_, kind) in best.items()}


# --- plain values, as a user function holds them -----------------------------------------------------------------------

def plain(state, kind, store):
    if kind == GCOUNTER:
        return sum(entry[1] for entry in store.values())
    if kind == PNCOUNTER:
        return sum(entry[1] - entry[2] for entry in store.values())
    if kind in SETS:
        return set(store)
    if kind == LWWREGISTER:
        best = winner(store)
        return None if best is None else best[2]
    if kind == FLAG:
        return bool(store)
    if kind == VOTE:
        return state.triple(store)
    return {
        key: (below_kind, plain(state, below_kind, store[key, below_kind][1]))
        for key, below_kind in visible(store).items()
    }


def zero(kind):
    return (0, 0, set(), set(), None, False, {}, (False, 0, 1))[kind - 1]


def exported(kind, value):
    if kind in SETS:
        return {any_bytes(element) for element in value}
    if kind == LWWREGISTER:
        return None if value is None else any_bytes(value)
    if kind == ORMAP:
        return {any_bytes(key): exported(below_kind, below) for key, (below_kind, below) in value.items()}
    return value


class Incompatible(Exception):
    """No delta leads from one plain value to the other."""


def difference(kind, old, new):
    """CrdtDelta fields from one plain value to another: (content or None, what the user function then has)."""
    if kind == GCOUNTER:
        if new < old:
            raise Incompatible
        step = min(new - old, (1 << 64) - 1)
        return (field_varint(1, step) if step else None), old + step
    if kind == PNCOUNTER:
        step = max(min(new - old, (1 << 63) - 1), -(1 << 63))
        return (field_varint(1, step << 1 if step >= 0 else (-step << 1) - 1) if step else None), old + step
    if kind == GSET:
        if old - new:
            raise Incompatible
        added = new - old
        return (b"".join(field_bytes(1, any_bytes(element)) for element in added) or None), set(new)
    if kind == ORSET:
        return set_difference(old, new), set(new)
    if kind == LWWREGISTER:
        if old == new:
            return None, new
        return (b"" if new is None else field_bytes(1, any_bytes(new))), new
    if kind == FLAG:
        if old and not new:
            raise Incompatible
        return (b"\x08\x01" if new and not old else None), new
    if kind == VOTE:
        return (None if old == new else vote_content(new)), new
    return map_difference(old, new)


def set_difference(old, new):
    if old == new:
        return None
    if not new:
        return b"\x08\x01"
    removed = old - new
    added = new - old
    if len(removed) + len(added) > len(new):
        return b"\x08\x01" + b"".join(field_bytes(3, any_bytes(element)) for element in new)
    return b"".join(field_bytes(2, any_bytes(element)) for element in removed) + b"".join(
        field_bytes(3, any_bytes(element)) for element in added
    )


def vote_content(triple):
    self_vote, votes_for, total = triple
    return (
        (b"\x08\x01" if self_vote else b"")
        + (field_varint(2, votes_for) if votes_for else b"")
        + (field_varint(3, total) if total else b"")
    )


def map_difference(old, new):
    if old and not new:
        return b"\x08\x01", {}
    removed = []
    updated = []
    added = []
    reached = {}
    for key in old:
        if key not in new:
            removed.append(key)
    for key, (kind, value) in new.items():
        if key in old and old[key][0] == kind:
            try:
                content, now = difference(kind, old[key][1], value)
                reached[key] = (kind, now)
                if content is not None:
                    updated.append((key, kind, content))
                continue
            except Incompatible:
                pass
        if key in old:
            removed.append(key)
        content, now = from_zero(kind, value)
        reached[key] = (kind, now)
        added.append((key, kind, content))
    parts = [field_bytes(2, any_bytes(key)) for key in removed]
    for number, entries in ((3, updated), (4, added)):
        for key, kind, content in entries:
            entry = field_bytes(1, any_bytes(key)) + field_bytes(2, field_bytes(kind, content))
            parts.append(field_bytes(number, entry))
    return (b"".join(parts) or None), reached


def from_zero(kind, value):
    if kind == VOTE:
        return vote_content(value), value
    if kind == ORSET:
        return b"".join(field_bytes(3, any_bytes(element)) for element in value), set(value)
    content, reached = difference(kind, zero(kind), value)
    return content or b"", reached


# --- protobuf ----------------------------------------------------------------------------------------------------------

def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_varint(number, value):
    return varint(number << 3) + varint(value)


def field_bytes(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def any_bytes(element):
    url, value = element
    url = url.encode()
    return (field_bytes(1, url) if url else b"") + (field_bytes(2, value) if value else b"")


def read_varint(data, at, end, limit=10):
    value = 0
    for i in range(limit):
        if at + i >= end:
            raise Malformed(f"truncated varint at byte {at}")
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            return value, at + i + 1
    raise Malformed(f"varint too long at byte {at}")


def fields(data, at, end, level=0):
    """(number, wire type, value or (start, end), offset) of a message in data[at:end]."""
    while at < end:
        start = at
        tag, at = read_varint(data, at, end, 5)
        number, wire_type = tag >> 3, tag & 7
        if not number or tag >> 32:
            raise Malformed(f"field number out of range at byte {start}")
        if wire_type == 0:
            value, at = read_varint(data, at, end)
            yield number, 0, value & (1 << 64) - 1, start
        elif wire_type == 2:
            size, at = read_varint(data, at, end, 5)
            if size > end - at:
                raise Malformed(f"truncated: length beyond the end at byte {start}")
            yield number, 2, (at, at + size), start
            at += size
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
            if size > end - at:
                raise Malformed(f"truncated fixed-size value at byte {start}")
            yield number, wire_type, 0, start
            at += size
        else:
            raise Malformed(f"group or unknown wire type at byte {start}")


def parse_any(data, at, end):
    url = ""
    value = b""
    for number, wire_type, content, start in fields(data, at, end):
        if number == 1 and wire_type == 2:
            try:
                url = data[content[0]:content[1]].decode()
            except UnicodeDecodeError:
                raise Malformed(f"type_url that is not UTF-8 at byte {start}") from None
        elif number == 2 and wire_type == 2:
            value = data[content[0]:content[1]]
    return url, value


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def parse_delta(data, at, end, depth):
    """(kind, content) of a CrdtDelta; kind 0 when no member is set. Of several members the last one counts."""
    if depth < 0:
        raise Malformed(f"maps nested too deeply at byte {at}")
    kind = 0
    spans = []
    for number, wire_type, content, start in fields(data, at, end):
        if 1 <= number <= 8 and wire_type == 2:
            if number != kind:
                spans = []
            kind = number
            spans.append(content)
    return kind, [parse_member(kind, data, span[0], span[1], depth) for span in spans]


def parse_member(kind, data, at, end, depth):
    found = {}
    lists = {"removed": [], "updated": [], "added": []}
    for number, wire_type, content, start in fields(data, at, end):
        if wire_type == 0:
            found[number] = content
        elif wire_type == 2:
            if kind == GSET and number == 1 or kind == ORSET and number == 3:
                lists["added"].append(parse_any(data, content[0], content[1]))
            elif kind in (ORSET, ORMAP) and number == 2:
                lists["removed"].append(parse_any(data, content[0], content[1]))
            elif kind == ORMAP and number in (3, 4):
                entry = parse_entry(data, content[0], content[1], depth)
                lists["updated" if number == 3 else "added"].append(entry)
            elif kind == LWWREGISTER and number == 1:
                found["value"] = parse_any(data, content[0], content[1])
    return found, lists


def parse_entry(data, at, end, depth):
    key = None
    delta = None
    for number, wire_type, content, start in fields(data, at, end):
        if number == 1 and wire_type == 2:
            key = parse_any(data, content[0], content[1])
        elif number == 2 and wire_type == 2:
            delta = parse_delta(data, content[0], content[1], depth - 1)
    return key, delta


def kind_of_delta(delta):
    return parse_delta(delta, 0, len(delta), MAX_LEVELS)[0]


# --- own encoding -------------------------------------------------------------------------------------------------------

class Writer:
    """See docs/crdt-format.md."""

    def __init__(self):
        self.out = bytearray()
        self.replicas = {}
        self.urls = {}
        self.last = (0, 0)

    def number(self, value):
        self.out += varint(value)

    def text(self, content):
        self.number(len(content))
        self.out += content

    def dot(self, dot):
        index, n = self.replicas[dot[0]], dot[1]
        if index == self.last[0] and n == self.last[1] + 1:
            self.out.append(1)
        elif index == self.last[0]:
            self.out.append(2)
            self.number(zigzag(n - self.last[1]))
        else:
            self.out.append(3)
            self.number(index)
            self.number(n)
        self.last = (index, n)

    def head(self, element, dots, canonical):
        """Element with its dots. A single dot's code stands in the head."""
        url = self.urls[element[0]]
        if len(dots) != 1:
            self.number(url << 3 | (4 if dots else 0))
        else:
            at = len(self.out)
            self.dot(next(iter(dots)))
            coded = bytes(self.out[at:])
            del self.out[at:]
            self.number(url << 3 | coded[0])
            self.out += coded[1:]
        if len(dots) > 1:
            self.number(len(dots))
            for dot in sorted(dots):
                self.dot(dot)
        self.text(element[1])

    def store(self, kind, store, canonical):
        if kind == FLAG:
            self.number(len(store))
            for dot in sorted(store):
                self.dot(dot)
            return
        if kind in SETS or kind == ORMAP:
            self.out.append(0)
        self.number(len(store))
        for key in sorted(store) if canonical else store:
            entry = store[key]
            if kind in SETS:
                self.head(key, entry, canonical)
            elif kind == ORMAP:
                self.head(key[0], entry[0], canonical)
                self.out.append(key[1])
                self.store(key[1], entry[1], canonical)
            else:
                self.dot((key, entry[0]))
                self.entry(kind, entry)

    def entry(self, kind, entry):
        if kind in COUNTERS:
            for amount in entry[1:]:
                self.number(amount)
        elif kind == VOTE:
            self.out += entry[1].to_bytes(8, "little")
            self.out.append(entry[2])
        else:
            self.number(zigzag(entry[1]))
            self.number(self.urls[entry[2][0]])
            self.text(entry[2][1])

    def context(self, context, replicas):
        for replica in replicas:
            prefix = context.prefix.get(replica, 0)
            runs = []
            for n in sorted(context.cloud.get(replica, ())):
                if runs and n == runs[-1][1] + 1:
                    runs[-1][1] = n
                else:
                    runs.append([n, n])
            self.number(prefix)
            self.number(len(runs))
            end = prefix
            for first, last in runs:
                self.number(first - end - 2)
                self.number(last - first)
                end = last


def zigzag(value):
    return value << 1 if value >= 0 else (-value << 1) - 1


def urls_of(kind, store):
    if kind in SETS:
        for url, _ in store:
            yield url
    elif kind == LWWREGISTER:
        for _, _, value in store.values():
            yield value[0]
    elif kind == ORMAP:
        for (key, below_kind), (_, below) in store.items():
            yield key[0]
            yield from urls_of(below_kind, below)


def encode(kind, context, store, canonical):
    writer = Writer()
    replicas = sorted(set(context.prefix) | set(context.cloud))
    writer.replicas = {replica: i for i, replica in enumerate(replicas)}
    writer.out += bytes((FORMAT, kind))
    writer.number(len(replicas))
    for replica in replicas:
        writer.out += replica.to_bytes(8, "little")
    writer.number(len(context.pruned))
    for replica in sorted(context.pruned):
        writer.out += replica.to_bytes(8, "little")
    writer.context(context, replicas)
    urls = sorted({url.encode() for url in urls_of(kind, store)})
    writer.urls = {url.decode(): i for i, url in enumerate(urls)}
    writer.number(len(urls))
    for url in urls:
        writer.text(url)
    writer.store(kind, store, canonical)
    return bytes(writer.out)


class Reader:
    def __init__(self, data, bounds):
        if not isinstance(data, bytes):
            raise TypeError("encoded state must be bytes")
        self.data = data
        self.at = 0
        self.end = len(data)
        self.bounds = bounds
        self.last = (0, 0)

    def refuse(self, what):
        raise Malformed(f"{what} at byte {self.at}")

    def byte(self):
        if self.at >= self.end:
            self.refuse("truncated")
        self.at += 1
        return self.data[self.at - 1]

    def number(self, limit):
        value, at = read_varint(self.data, self.at, self.end, 17)
        if value > limit:
            self.refuse("number out of range")
        self.at = at
        return value

    def count(self, least):
        value = self.number(1 << 62)
        if value * least > self.end - self.at:
            self.refuse("count beyond the end")
        return value

    def bytes(self, size):
        if size > self.end - self.at:
            self.refuse("length beyond the end")
        self.at += size
        return self.data[self.at - size:self.at]

    def ids(self):
        count = self.count(8)
        if count > self.bounds.max_replicas:
            self.refuse(f"more than {self.bounds.max_replicas} replicas")
        found = [int.from_bytes(self.bytes(8), "little") for _ in range(count)]
        if sorted(set(found)) != found:
            self.refuse("replicas out of order")
        return found

    def dot(self, code=None):
        code = self.byte() if code is None else code
        index, n = self.last
        if code == 1:
            n += 1
        elif code == 2:
            step = self.number(1 << 46)
            n += step >> 1 if not step & 1 else -(step + 1 >> 1)
        elif code == 3:
            index = self.number(1 << 16)
            n = self.number(MAX_COUNT)
        else:
            self.refuse("unknown code of a dot")
        if index >= len(self.replicas) or not 1 <= n <= MAX_COUNT:
            self.refuse("dot out of range")
        self.last = (index, n)
        dot = (self.replicas[index], n)
        if dot not in self.context or dot[0] in self.context.pruned:
            self.refuse("dot that is not in the context")
        return dot

    def dots(self):
        count = self.count(1)
        dots = [self.dot() for _ in range(count)]
        if len(set(dots)) != count:
            self.refuse("dot twice")
        return set(dots)

    def header(self):
        if self.byte() != FORMAT:
            self.at = 0
            self.refuse("unknown version of the format")
        self.kind = self.byte()
        if not 1 <= self.kind <= 8:
            self.refuse("unknown type")
        self.replicas = self.ids()
        self.context = Context()
        self.context.pruned = set(self.ids())
        if self.context.pruned & set(self.replicas):
            self.refuse("pruned replica with changes")
        cloud = 0
        for replica in self.replicas:
            cloud += self.ranges(replica)
            if cloud > self.bounds.max_cloud:
                self.refuse("too many dots beyond the prefixes")
        self.urls = []
        for _ in range(self.count(1)):
            url = self.bytes(self.number(1 << 31))
            try:
                self.urls.append(url.decode())
            except UnicodeDecodeError:
                self.refuse("type_url that is not UTF-8")
        if len(set(self.urls)) != len(self.urls):
            self.refuse("type_url twice")

    def ranges(self, replica):
        prefix = self.number(MAX_COUNT)
        if prefix:
            self.context.prefix[replica] = prefix
        count = self.count(2)
        if not prefix and not count:
            self.refuse("replica without changes")
        total = 0
        end = prefix
        for _ in range(count):
            gap = self.number(MAX_COUNT) + 2
            size = self.number(MAX_COUNT)
            total += size + 1
            if end + gap + size > MAX_COUNT:
                self.refuse("range beyond the largest count")
            if total > self.bounds.max_cloud:
                self.refuse("too many dots beyond the prefixes")
            cloud = self.context.cloud.setdefault(replica, set())
            cloud.update(range(end + gap, end + gap + size + 1))
            end += gap + size
        self.context.compact(replica)
        return total

    def element(self, in_map):
        head = self.number(1 << 40)
        code = head & 7
        url = self.url(head >> 3)
        if code == 4:
            dots = self.dots()
            if len(dots) < 2:
                self.refuse("list of less than two dots")
        else:
            dots = {self.dot(code)} if code else set()
        return (url, self.bytes(self.number(1 << 31))), dots

    def url(self, index):
        if index >= len(self.urls):
            self.refuse("unknown type_url")
        return self.urls[index]

    def store(self, kind, depth):
        if kind == FLAG:
            return self.dots()
        if kind in SETS or kind == ORMAP:
            if self.byte() > 1:
                self.refuse("unknown flags of a store")
        if kind == ORMAP and depth < 1:
            self.refuse("maps nested too deeply")
        found = {}
        for _ in range(self.count(2)):
            key, entry = self.entry(kind, depth)
            if key in found:
                self.refuse("entry twice")
            found[key] = entry
        if kind in SETS:
            return {key: dots for key, dots in found.items() if dots}
        if kind == ORMAP:
            return {key: entry for key, entry in found.items() if entry[0]}
        return found

    def entry(self, kind, depth):
        if kind in SETS:
            return self.element(False)
        if kind == ORMAP:
            key, dots = self.element(True)
            below_kind = self.byte()
            if not 1 <= below_kind <= 8:
                self.refuse("unknown type")
            return (key, below_kind), [dots, self.store(below_kind, depth - 1)]
        replica, n = self.dot()
        if kind == GCOUNTER:
            return replica, (n, self.number(MAX_SUM))
        if kind == PNCOUNTER:
            return replica, (n, self.number(MAX_SUM), self.number(MAX_SUM))
        if kind == VOTE:
            incarnation = int.from_bytes(self.bytes(8), "little")
            vote = self.byte()
            if vote > 1:
                self.refuse("vote that is neither yes nor no")
            return replica, (n, incarnation, bool(vote))
        timestamp = self.number((1 << 64) - 1)
        timestamp = timestamp >> 1 if not timestamp & 1 else -(timestamp + 1 >> 1)
        url = self.url(self.number(1 << 31))
        return replica, (n, timestamp, (url, self.bytes(self.number(1 << 31))))

    def read(self):
        self.header()
        found = self.store(self.kind, self.bounds.max_depth)
        if self.at != self.end:
            self.refuse("trailing bytes")
        return self.kind, self.context, found


def kind_of(data):
    if not isinstance(data, bytes):
        raise TypeError("encoded state must be bytes")
    if len(data) < 2 or data[0] != FORMAT or not 1 <= data[1] <= 8:
        raise Malformed("neither a state nor a replica's delta: unknown version or type at byte 0")
    return data[1]


def join_deltas(deltas):
    deltas = list(deltas)
    if not deltas:
        return b""
    kind, context, store = Reader(deltas[0], Bounds()).read()
    for data in deltas[1:]:
        other, other_context, other_store = Reader(data, Bounds()).read()
        if other != kind:
            raise Malformed(f"deltas of a {NAMES[kind]} and of a {NAMES[other]}")
        store = join(kind, store, other_store, context, other_context)
        context.join(other_context)
    return encode(kind, context, store, False)


# --- state --------------------------------------------------------------------------------------------------------------

MIN_TIME = -(1 << 63)
MAX_TIME = (1 << 63) - 1


def next_time(clock, custom, now, before):
    """Timestamp of a register write. before: None without a value."""
    if clock == 1:
        return -now if before is None else min(-now, max(before - 1, MIN_TIME))
    if clock == 2 or (clock == 3 and (before is None or custom > before)):
        return custom
    if clock == 3:
        return min(before + 1, MAX_TIME)
    return now if before is None else max(now, min(before + 1, MAX_TIME))


class State:
    def __init__(self, kind, replica, incarnation=0, bounds=None):
        if not 1 <= kind <= 8:
            raise ValueError(f"{kind} is no type of a CRDT")
        if not 0 <= replica < 1 << 64 or not 0 <= incarnation < 1 << 64:
            raise ValueError("replica and incarnation must be unsigned 64-bit numbers")
        self.kind = kind
        self.replica = replica
        self._incarnation = incarnation
        self._bounds = bounds or Bounds()
        self._context = Context()
        self._store = new_store(kind)
        self._taken = 0
        self._covered = set()
        self._whole = False
        self._seen = None
        self._known = None
        self._members = None
        self._absent = 0
        live[0] += 1

    def __del__(self):
        live[0] -= 1

    @staticmethod
    def decode(data, replica, incarnation=0, bounds=None):
        kind, context, store = Reader(data, bounds or Bounds()).read()
        state = State(kind, replica, incarnation, bounds)
        state._context = context
        state._store = store
        state._taken = context.last(replica)
        return state

    # --- changes of the user function

    def apply(self, delta, now):
        kind, members = parse_delta(delta, 0, len(delta), self._bounds.max_depth)
        if not kind:
            raise Rejected("Empty delta")
        if kind != self.kind:
            raise Rejected(f"Type mismatch: this entity is a {NAMES[self.kind]}, the delta one of a {NAMES[kind]}")
        for member in members:
            self._check(kind, self._store, member, False)
        backup = (self._context.copy(), copy_store(kind, self._store), set(self._covered))
        before = self.size
        known = self._known
        for member in members:
            self._store, known, _ = self._change(kind, self._store, known, member, now)
        if self.size > self._bounds.max_state_size and self.size > before:
            self._context, self._store, self._covered = backup
            raise Rejected(f"State would be larger than {self._bounds.max_state_size} bytes")
        if self._seen is not None:
            self._known = known

    def _check(self, kind, store, member, reset):
        found, lists = member
        if kind == GCOUNTER and found.get(1, 0) >> 63:
            raise Rejected("Cannot decrement a GCounter")
        if kind == FLAG and not found.get(1) and not reset and store is not None:
            if any(self._has_seen(dot) for dot in store):
                raise Rejected("Cannot switch off already enabled flag")
        if kind != ORMAP:
            return
        shown = {} if store is None else visible(store)
        gone = set(lists["removed"])
        for which in ("updated", "added"):
            for key, delta in lists[which]:
                if key is None:
                    raise Rejected("Map entry without key")
                if delta is None:
                    raise Rejected("Map entry without delta")
                below_kind, members = delta
                if not below_kind:
                    raise Rejected("Empty delta")
                below = store[key, below_kind][1] if shown.get(key) == below_kind else None
                for below_member in members:
                    self._check(below_kind, below, below_member, reset or bool(found.get(1)) or key in gone)

    def _has_seen(self, dot):
        return self._seen is None or dot in self._seen

    def _new_dot(self):
        n = self._context.last(self.replica) + 1
        if n > MAX_COUNT:
            raise Rejected("This replica has made all the changes it can count")
        if self.replica in self._context.pruned:
            raise Rejected("This replica was pruned from the state")
        self._context.add((self.replica, n))
        if self._seen is not None:
            self._seen.add((self.replica, n))
        return self.replica, n

    def _cover(self, kind, store):
        gone = {dot for dot in all_dots(kind, store) if self._has_seen(dot)}
        self._covered |= gone
        return without(kind, store, gone)

    def _replace(self, dots):
        """A new dot in place of those seen."""
        gone = {dot for dot in dots if self._has_seen(dot)}
        self._covered |= gone
        return (set(dots) - gone) | {self._new_dot()}

    def _change(self, kind, store, known, member, now):
        """(store, what the user function has, whether a register's value won) after a change."""
        found, lists = member
        me = self.replica
        won = True
        if kind == GCOUNTER:
            amount = found.get(1, 0)
            if amount:
                _, dot = me, self._new_dot()
                if me in store:
                    self._covered.add((me, store[me][0]))
                store[me] = (dot[1], store.get(me, (0, 0))[1] + amount)
                known = known + amount if known is not None else None
        elif kind == PNCOUNTER:
            amount = found.get(1, 0)
            amount = -(amount + 1 >> 1) if amount & 1 else amount >> 1
            if amount:
                dot = self._new_dot()
                if me in store:
                    self._covered.add((me, store[me][0]))
                _, p, m = store.get(me, (0, 0, 0))
                store[me] = (dot[1], p + max(amount, 0), m + max(-amount, 0))
                known = known + amount if known is not None else None
        elif kind in SETS:
            store, known = self._change_set(kind, store, known, member)
        elif kind == LWWREGISTER:
            store, known, won = self._change_register(store, known, member, now)
        elif kind == FLAG:
            if found.get(1):
                store = self._replace(store)
                known = True if known is not None else None
        elif kind == VOTE:
            store, known = self._change_vote(store, known, bool(found.get(1)))
        else:
            store, known = self._change_map(store, known, member, now)
        return store, known, won

    def _change_set(self, kind, store, known, member):
        found, lists = member
        known = set(known) if known is not None else None
        if kind == ORSET and found.get(1):
            store = self._cover(kind, store)
            known = set() if known is not None else None
        for element in lists["removed"]:
            if element in store:
                left = self._cover(kind, {element: store[element]})
                if left:
                    store.update(left)
                else:
                    del store[element]
            if known is not None:
                known.discard(element)
        for element in lists["added"]:
            store[element] = self._replace(store.get(element, ()))
            if known is not None:
                known.add(element)
        return store, known

    def _change_register(self, store, known, member, now):
        found, _ = member
        value = found.get("value", ("", b""))
        best = winner(store)
        clock = found.get(2, 0)
        timestamp = next_time(clock, signed(found.get(3, 0)), now, None if best is None else best[0])
        won = best is None or (timestamp, -self.replica, value) > best
        if won and best is not None and self.replica in store:
            won = (timestamp, -self.replica) != best[:2]
        if won:
            if self.replica in store:
                self._covered.add((self.replica, store[self.replica][0]))
            store[self.replica] = (self._new_dot()[1], timestamp, value)
        return store, (value if self._seen is not None else None), won

    def _change_vote(self, store, known, vote):
        mine = store.get(self.replica)
        voted = mine is not None and mine[1] == self._incarnation and mine[2]
        if voted != vote:
            if mine is not None:
                self._covered.add((self.replica, mine[0]))
            store[self.replica] = (self._new_dot()[1], self._incarnation, vote)
        if known is not None and known[0] != vote:
            known = (vote, known[1] + (1 if vote else -1), known[2])
        return store, known

    def _change_map(self, store, known, member, now):
        found, lists = member
        known = dict(known) if known is not None else None
        if found.get(1):
            store = self._cover(ORMAP, store)
            known = {} if known is not None else None
        for key in lists["removed"]:
            store = self._remove_key(store, key, 0)
            if known is not None:
                known.pop(key, None)
        for key, (kind, members) in lists["updated"]:
            shown = visible(store).get(key)
            if shown == kind:
                store = self._change_key(store, known, key, kind, members, now, False)
        for key, (kind, members) in lists["added"]:
            store = self._remove_key(store, key, kind)
            store = self._change_key(store, known, key, kind, members, now, True)
        return store, known

    def _remove_key(self, store, key, kept_kind):
        for kind in range(1, 9):
            if kind != kept_kind and (key, kind) in store:
                left = self._cover(ORMAP, {(key, kind): store[key, kind]})
                if left:
                    store.update(left)
                else:
                    del store[key, kind]
        return store

    def _change_key(self, store, known, key, kind, members, now, adding):
        dots, below = store.get((key, kind)) or (set(), new_store(kind))
        store[key, kind] = [self._replace(dots), below]
        has = None
        if known is not None and key in known and known[key][0] == kind:
            has = known[key][1]
        elif known is not None and adding:
            has = zero(kind)
        for member in members:
            below, value, _ = self._change(kind, below, has, member, now)
            has = value if has is not None or kind == LWWREGISTER else None
        store[key, kind][1] = below
        if known is not None and (adding or (key in known and known[key][0] == kind)):
            known[key] = (kind, has)
        return store

    def take_delta(self):
        first = self._taken + 1
        last = self._context.last(self.replica)
        if self._whole:
            self._whole = False
            self._covered = set()
            self._taken = last
            return self.encode()
        if last < first and not self._covered:
            return b""
        context = Context()
        if last >= first:
            context.cloud[self.replica] = set(range(first, last + 1))
            context.compact(self.replica)
        for dot in self._covered:
            context.cloud.setdefault(dot[0], set()).add(dot[1])
        for replica in list(context.cloud):
            context.compact(replica)
        me = self.replica
        store = only(self.kind, self._store, lambda dot: dot[0] == me and dot[1] >= first)
        self._taken = last
        self._covered = set()
        return encode(self.kind, context, store, False)

    # --- changes of others

    def merge(self, data):
        kind, context, store = Reader(data, self._bounds).read()
        if kind != self.kind:
            raise Malformed(f"state of a {NAMES[kind]}, where a {NAMES[self.kind]} stands")
        joined = join(kind, self._store, store, self._context, context)
        contexts = self._context.copy()
        contexts.join(context)
        if len(set(contexts.prefix) | set(contexts.cloud) | contexts.pruned) > self._bounds.max_replicas:
            raise Malformed(f"more than {self._bounds.max_replicas} replicas")
        if sum(len(cloud) for cloud in contexts.cloud.values()) > self._bounds.max_cloud:
            raise Malformed(f"more than {self._bounds.max_cloud} dots beyond the prefixes")
        size = rough_size(kind, joined)
        if size > self._bounds.max_state_size and size > self.size:
            raise Malformed(f"state would be larger than {self._bounds.max_state_size} bytes")
        changed = joined != self._store or contexts.dump() != self._context.dump() \
            or contexts.pruned != self._context.pruned
        self._store = joined
        self._context = contexts
        return changed

    def prune(self, gone, heir):
        if heir != self.replica or gone == heir:
            raise ValueError("only another replica can be pruned, by its heir")
        self._store = self._prune(self.kind, self._store, gone)
        other = Context()
        other.pruned = {gone}
        self._context.join(other)
        self._covered = set()
        self._whole = True

    def _prune(self, kind, store, gone):
        me = self.replica
        if kind == FLAG:
            return self._prune_dots(store, gone)
        if kind in SETS:
            for element in sorted(store):
                store[element] = self._prune_dots(store[element], gone)
        elif kind == ORMAP:
            for key in sorted(store):
                store[key] = [self._prune_dots(store[key][0], gone), store[key][1]]
                store[key][1] = self._prune(key[1], store[key][1], gone)
        elif gone in store:
            lost = store.pop(gone)
            mine = store.get(me)
            if kind in COUNTERS:
                sums = mine[1:] if mine else (0,) * (len(lost) - 1)
                sums = tuple(a + b for a, b in zip(sums, lost[1:], strict=True))
                store[me] = (self._heir_dot(gone, lost[0])[1], *sums)
            elif kind == LWWREGISTER and (mine is None or lost[1:] > mine[1:]):
                store[me] = (self._heir_dot(gone, lost[0])[1], *lost[1:])
        return store

    def _heir_dot(self, gone, n):
        seen = self._has_seen((gone, n))
        dot = (self.replica, self._context.last(self.replica) + 1)
        self._context.add(dot)
        if self._seen is not None and seen:
            self._seen.add(dot)
        return dot

    def _prune_dots(self, dots, gone):
        lost = {dot for dot in dots if dot[0] == gone}
        if not lost:
            return dots
        mine = {dot for dot in dots if dot[0] == self.replica}
        return (set(dots) - lost - mine) | {self._heir_dot(*max(lost))}

    @property
    def pruned(self):
        return frozenset(self._context.pruned)

    def forget_pruned(self, gone):
        self._context.pruned.discard(gone)

    # --- the user function's view

    def open_view(self):
        self._seen = self._context.copy()
        value = plain(self, self.kind, self._store)
        content, self._known = from_zero(self.kind, value)
        return field_bytes(self.kind, content)

    def take_change(self):
        if self._seen is None:
            return b""
        self._seen = self._context.copy()
        value = plain(self, self.kind, self._store)
        try:
            content, self._known = difference(self.kind, self._known, value)
        except Incompatible:
            content, self._known = from_zero(self.kind, value)
        return b"" if content is None else field_bytes(self.kind, content)

    def close_view(self):
        self._seen = None
        self._known = None

    def set_members(self, incarnations, absent=0):
        self._members = frozenset(incarnations)
        self._absent = absent
        if self._seen is None:
            return False
        try:
            return difference(self.kind, self._known, plain(self, self.kind, self._store))[0] is not None
        except Incompatible:
            return True

    def triple(self, store):
        members = frozenset((self._incarnation,)) if self._members is None else self._members
        votes = sum(1 for _, incarnation, vote in store.values() if vote and incarnation in members)
        mine = store.get(self.replica)
        voted = mine is not None and mine[1] == self._incarnation and mine[2] and self._incarnation in members
        return bool(voted), votes, len(members) + self._absent

    # --- as a whole

    def encode(self, canonical=False):
        return encode(self.kind, self._context, self._store, canonical)

    def digest(self):
        from hashlib import blake2b

        return blake2b(self.encode(True), digest_size=16).digest()

    @property
    def size(self):
        return rough_size(self.kind, self._store)

    def dump(self):
        return self.kind, self._context.dump(), dumped(self.kind, self._store), self.pruned

    # --- single operations

    def value(self):
        return exported(self.kind, plain(self, self.kind, self._store))

    def increment(self, amount=1):
        if self.kind == GCOUNTER:
            if not 0 <= amount < 1 << 63:
                raise Rejected("Cannot decrement a GCounter")
            self.apply(field_bytes(1, field_varint(1, amount)), 0)
        else:
            if not MIN_TIME <= amount <= MAX_TIME:
                raise Rejected("A change of a PNCounter must be a signed 64-bit number")
            self.apply(field_bytes(2, field_varint(1, zigzag(amount))), 0)

    def add(self, element):
        kind = GSET if self.kind == GSET else ORSET
        self.apply(field_bytes(kind, field_bytes(1 if kind == GSET else 3, element)), 0)

    def remove(self, element):
        self.apply(field_bytes(ORMAP if self.kind == ORMAP else ORSET, field_bytes(2, element)), 0)

    def clear(self):
        self.apply(field_bytes(ORMAP if self.kind == ORMAP else ORSET, b"\x08\x01"), 0)

    def contains(self, element):
        element = parse_any(element, 0, len(element))
        if self.kind == ORMAP:
            return any((element, kind) in self._store for kind in range(1, 9))
        if self.kind not in SETS:
            raise Rejected(f"Type mismatch: a {NAMES[self.kind]} has no elements")
        return element in self._store

    def set(self, value, now, clock=0, custom=0):
        if self.kind != LWWREGISTER:
            raise Rejected(f"Type mismatch: this entity is a {NAMES[self.kind]}, the delta one of a LWWRegister")
        member = {"value": parse_any(value, 0, len(value)), 2: clock, 3: custom & (1 << 64) - 1}
        self._store, known, won = self._change_register(self._store, self._known, (member, {}), now)
        if self._seen is not None:
            self._known = known
        return won

    def enable(self):
        self.apply(b"\x32\x02\x08\x01", 0)

    def vote(self, vote):
        self.apply(b"\x42\x02\x08\x01" if vote else b"\x42\x00", 0)


def dumped(kind, store):
    if kind == FLAG:
        return frozenset(store)
    if kind in SETS:
        return {element: frozenset(store[element]) for element in sorted(store)}
    if kind == ORMAP:
        return {key: (frozenset(store[key][0]), dumped(key[1], store[key][1])) for key in sorted(store)}
    return {replica: store[replica] for replica in sorted(store)}


def rough_size(kind, store):
    if kind == FLAG:
        return 8 + 4 * len(store)
    if kind in SETS:
        return 16 + sum(len(value) + 4 + 4 * len(dots) for (_, value), dots in store.items())
    if kind == ORMAP:
        return 16 + sum(
            len(key[1]) + 4 + 4 * len(dots) + rough_size(below_kind, below)
            for (key, below_kind), (dots, below) in store.items()
        )
    if kind == LWWREGISTER:
        return 16 + sum(16 + len(value[1]) for _, _, value in store.values())
    return 16 + 16 * len(store)


def live_states():
    return live[0]
