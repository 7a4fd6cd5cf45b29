"""Every key that rests in Redis is built here.

A lane's keys carry the hash tag `{generation:lane}`, so that a Redis Cluster
keeps them in one slot and a commit of the lane is one legal transaction.
Ids appear as 16 hex digits of their 64-bit hash (`schemas.ids`).

    {g1:0}u:0123456789abcdef   user row           {g1:0}i:…  item row
    {g1:0}v:<anchor>:<hash>    user vector        {g1:0}p:…  product (JSON)
    {g1:0}b:…  what a user bought      {g1:0}bought  totals of these rows
    {g1:0}r:…  what a user refuses     {g1:0}o:…  what a user bought and `b:` has no room for
    {g1:0}s:<scope hash>       scope list, or a country's list (`state.rows.lane_rows.scope_hash`)
    {g1:0}f:<chunk>            item feed chunk    {g1:0}d:<segment>       dedupe segment
    {g1:0}globals  {g1:0}positions  {g1:0}redo  {g1:0}redo:<attempt>:<piece>  {g1:0}anchor
    {g1:0}owner  lease of the lane         {g1:0}owes-vectors  some users' vectors are behind their rows
    headrace:generation        the live generation's name; headrace:generation-before the one before
    headrace:generation:<name> record of a generation (`state.generations`)
    headrace:generation-changed  another value after each change of such a record
    {headrace:rules}<version>  a book of rules; {headrace:rules}positions names the live one
    headrace:flows:<name>      processes that fold a generation
    headrace:anchor:published  newest anchor      headrace:anchor:live    the one served
    headrace:anchor:run        how the last training ended (`state.anchors.last_run`)
    headrace:anchor:night      when a scheduler trains next
"""

RULES = b"{headrace:rules}"
GENERATION = b"headrace:generation"
GENERATION_BEFORE = b"headrace:generation-before"
GENERATION_CHANGED = b"headrace:generation-changed"
ANCHOR_PUBLISHED = b"headrace:anchor:published"
ANCHOR_LIVE = b"headrace:anchor:live"
ANCHOR_RUN = b"headrace:anchor:run"
ANCHOR_NIGHT = b"headrace:anchor:night"


def generation(name: str) -> bytes:
    """Record of a generation (`state.generations`)."""
    return GENERATION + b":" + name.encode()


def members(name: str) -> bytes:
    """Flow processes of a generation: a sorted set, by when each was last seen."""
    return b"headrace:flows:" + name.encode()


def owner(lane_prefix: bytes) -> bytes:
    """Lease of a lane: the name of the process that folds it."""
    return lane_prefix + b"owner"


def prefix(generation: str, lane: int) -> bytes:
    """Return the hash tag that starts every key of a lane.

    >>> prefix("g1", 0)
    b'{g1:0}'
    """
    return b"{%s:%d}" % (generation.encode(), lane)


def user(lane_prefix: bytes, user_hash: int) -> bytes:
    """Return the key of a user's row.

    >>> user(b"{g1:0}", 255)
    b'{g1:0}u:00000000000000ff'
    """
    return b"%s%016x" % (user_prefix(lane_prefix), user_hash)


def user_prefix(lane_prefix: bytes) -> bytes:
    """Return what the keys of a lane's user rows begin with."""
    return lane_prefix + b"u:"


def item(lane_prefix: bytes, item_hash: int) -> bytes:
    """Return the key of an item's row."""
    return b"%s%016x" % (item_prefix(lane_prefix), item_hash)


def item_prefix(lane_prefix: bytes) -> bytes:
    """Return what the keys of a lane's item rows begin with."""
    return lane_prefix + b"i:"


def hash_of(key: bytes) -> int:
    """Return the id hash that ends a key.

    >>> hash_of(item(b"{g1:0}", 255))
    255
    """
    return int(key[-16:], 16)


def purchases(lane_prefix: bytes, user_hash: int) -> bytes:
    """What a user bought, how often and when."""
    return b"%s%016x" % (purchases_prefix(lane_prefix), user_hash)


def purchases_prefix(lane_prefix: bytes) -> bytes:
    """Return what the keys of a lane's rows of purchases begin with."""
    return lane_prefix + b"b:"


def older_purchases(lane_prefix: bytes, user_hash: int) -> bytes:
    """What a user bought that the row of purchases has no room for any more."""
    return b"%so:%016x" % (lane_prefix, user_hash)


def refusals(lane_prefix: bytes, user_hash: int) -> bytes:
    """What a user disliked, sent back or rated low."""
    return b"%sr:%016x" % (lane_prefix, user_hash)


def purchase_totals(lane_prefix: bytes) -> bytes:
    """How many items users bought, and bought again."""
    return lane_prefix + b"bought"


def vector(lane_prefix: bytes, anchor: str, user_hash: int) -> bytes:
    """Return the key of a user's vector for an anchor."""
    return b"%s%016x" % (vector_prefix(lane_prefix, anchor), user_hash)


def vector_prefix(lane_prefix: bytes, anchor: str) -> bytes:
    """Return what the keys of a lane's vectors for an anchor begin with."""
    return b"%s%s:" % (vectors_prefix(lane_prefix), anchor.encode())


def vectors_prefix(lane_prefix: bytes) -> bytes:
    """Return the prefix of a lane's vectors for all anchors."""
    return lane_prefix + b"v:"


def anchor_of(vector_key: bytes) -> str:
    """Return the anchor a vector's key names.

    >>> anchor_of(vector(b"{g1:0}", "a7", 255))
    'a7'
    """
    return vector_key[vector_key.index(b"}v:") + 3 : -17].decode()


def product(lane_prefix: bytes, item_hash: int) -> bytes:
    """Return the key of an item's product."""
    return b"%sp:%016x" % (lane_prefix, item_hash)


def scope(lane_prefix: bytes, scope_hash: int) -> bytes:
    """Return the key of a top list (`state.rows.lane_rows.scope_hash`)."""
    return b"%ss:%016x" % (lane_prefix, scope_hash)


def feed(lane_prefix: bytes, chunk: int) -> bytes:
    """Return the key of a chunk of the feed of new and changed items."""
    return b"%sf:%d" % (lane_prefix, chunk)


def dedupe(lane_prefix: bytes, segment: int) -> bytes:
    """Return the key of a segment of the window of event ids."""
    return b"%sd:%d" % (lane_prefix, segment)


def lane_globals(lane_prefix: bytes) -> bytes:
    """Return the key of a lane's totals."""
    return lane_prefix + b"globals"


def positions(lane_prefix: bytes) -> bytes:
    """Return the key of a lane's positions in the log."""
    return lane_prefix + b"positions"


def redo(lane_prefix: bytes) -> bytes:
    """Return the key of a lane's redo record."""
    return lane_prefix + b"redo"


def redo_piece(lane_prefix: bytes, attempt: str, number: int) -> bytes:
    """Return the key of a piece of a redo record.

    >>> redo_piece(b"{g1:0}", "3f", 2)
    b'{g1:0}redo:3f:2'
    """
    return b"%sredo:%s:%d" % (lane_prefix, attempt.encode(), number)


def anchor_ready(lane_prefix: bytes) -> bytes:
    """Name of the anchor whose vectors every user of the lane has."""
    return lane_prefix + b"anchor"


def owes_vectors(lane_prefix: bytes) -> bytes:
    """There while some users' vectors are older than their rows, because the lane was catching up."""
    return lane_prefix + b"owes-vectors"


def rules(version: int) -> bytes:
    """A version of the book of business rules."""
    return b"%s%d" % (RULES, version)
