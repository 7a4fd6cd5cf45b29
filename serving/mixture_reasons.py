"""What the mixture's candidates owe their places to, said in a list."""

from serving.again import again
from serving.found import BY_POPULARITY, BY_REPEAT
from serving.items import Said
from serving.shop import Shop
from serving.visitor import Visitor
from state.item_rows import ADJ
from state.session import SESSION_EVENTS

WHOLE_SHOP = {"en": "the whole shop", "de": "der ganzen Auswahl"}
IN_SCOPE = {False: "popular_in", True: "trending_in"}
SOURCE_OF = {BY_POPULARITY: "popular", ADJ: "next_item"}
"""Names of what decided in the mixture; everything else is a co-occurrence."""
CODE = SESSION_EVENTS
"""`why * CODE + seed`: what decided, and the rank of the event it came from."""


def what_decided(shop: Shop, visitor: Visitor, codes: list[int], items: list[int]) -> list[Said]:
    """Return what is said of items by id hash, given what decided on each."""
    lang, phrases, bought = visitor.request.lang, shop.phrases, visitor.bought
    latest = list(dict.fromkeys(visitor.session.tolist()[::-1]))
    known: dict[int, Said] = {}  # most items of a list come of the same few events
    repeated = phrases["repeat", "buy_again", lang, None]
    said = []
    for code, item in zip(codes, items, strict=True):
        found = known.get(code)
        if found is None:
            why, seed = divmod(code, CODE)
            if why == BY_REPEAT:
                found = again(shop, visitor, item) if item in bought else repeated
            elif why == BY_POPULARITY or seed >= len(latest):
                source = SOURCE_OF.get(why, "cooccurrence")
                found = phrases[source, IN_SCOPE[item in shop.trending], lang, WHOLE_SHOP[lang]]
            else:
                because = "because_bought" if latest[seed] in bought else "because_viewed"
                found = known[code] = phrases[SOURCE_OF.get(why, "cooccurrence"), because, lang, latest[seed]]
        said.append(found)
    return said
