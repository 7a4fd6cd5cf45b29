"""The fields a column can become, and which column names stand for them."""

import re
from collections.abc import Iterable

from schemas.json_events import FIELDS, TOPIC_OF_TYPE

TEXTS = ("user", "session", "item", "brand", "country", "order_id", "query", "event_id", "title", "image_url", "seller",
         "request_id", "source", "arm", "anchor", "generation")  # fmt: skip
NUMBERS = ("price", "discount", "quantity", "stars", "margin", "propensity")
OWN = ("ts", "kind", "availability", "order")
"""Fields of a mapping that no event has: its time, its type, a word for `stock`, what makes rows one order."""
ALL = (*TEXTS, *NUMBERS, "category", "stock", "position", *OWN)
PREFIXES = ("attr.", "context.")

NAMES: dict[str, tuple[str, ...]] = {
    "user": ("user", "userid", "visitorid", "visitor", "customerid", "customer", "customernumber", "clientid", "client",
             "memberid", "member", "uid", "accountid", "buyerid", "buyer", "shopperid", "householdid", "reviewerid",
             "customeruniqueid", "customeremail", "email", "useremail", "kunde", "kundenid", "kundennr",
             "kundennummer", "idclient", "cliente", "idcliente"),
    "session": ("session", "sessionid", "usersession", "visitid", "gasessionid", "userpseudoid", "cookieid",
                "anonymousid", "sitzung"),
    "item": ("item", "itemid", "productid", "product", "sku", "productsku", "itemsku", "variantsku", "articleid",
             "article", "articlenumber", "stockcode", "asin", "parentasin", "isbn", "offerid", "movieid", "trackid",
             "contentid", "productcode", "itemcode", "goodsid", "artikel", "artikelid", "artikelnr",
             "artikelnummer", "produktid", "produkt", "idproduit", "referencia"),
    "ts": ("ts", "tsms", "timestamp", "time", "eventtime", "eventtimestamp", "datetime", "createdat", "created",
           "orderdate", "invoicedate", "purchasedate", "orderpurchasetimestamp", "transactiondate", "purchasetime",
           "unixtime", "unixreviewtime", "eventdate", "date", "tdat", "updatedat", "zeit", "zeitpunkt", "datum",
           "bestelldatum", "fecha"),
    "kind": ("kind", "event", "eventtype", "eventname", "action", "actiontype", "behavior", "behaviour",
             "behaviortype", "interactiontype", "interaction", "type", "aktion", "ereignis"),
    "price": ("price", "unitprice", "itemprice", "saleprice", "salesprice", "productprice", "sellingprice",
              "lineprice", "preis", "einzelpreis", "prix", "precio"),
    "quantity": ("quantity", "qty", "units", "itemquantity", "quantityordered", "menge", "anzahl", "quantite",
                 "cantidad"),
    "discount": ("discount", "discountamount", "linediscount", "rabatt"),
    "order_id": ("orderid", "order", "ordernumber", "orderno", "invoice", "invoiceno", "invoicenumber", "invoiceid",
                 "transactionid", "basketid", "purchaseid", "receiptid", "bestellung", "bestellnr",
                 "bestellnummer", "rechnungsnummer", "auftragsnummer"),
    "category": ("category", "categorycode", "categorypath", "categoryname", "categories", "producttype",
                 "productcategory", "categoryid", "kategorie", "warengruppe", "categorie", "categoria"),
    "brand": ("brand", "brandname", "manufacturer", "vendor", "marke", "hersteller", "marque", "marca"),
    "country": ("country", "countrycode", "geocountry", "shippingcountry", "billingcountry", "land"),
    "stars": ("stars", "rating", "ratings", "score", "overall", "reviewscore", "bewertung", "sterne"),
    "query": ("query", "searchterm", "searchquery", "searchstring", "suchbegriff"),
    "event_id": ("eventid",),
    "title": ("title", "productname", "producttitle", "itemname", "itemtitle", "prodname", "name", "titel",
              "bezeichnung", "artikelbezeichnung", "produktname", "titre", "nombre"),
    "image_url": ("imageurl", "imagelink", "image", "imagesrc", "images", "picture", "pictureurl", "img", "imgurl",
                  "productimageurl", "bild", "bildurl"),
    "stock": ("stock", "stockquantity", "stocklevel", "inventory", "inventoryquantity", "variantinventoryqty",
              "quantityavailable", "unitsinstock", "onhand", "instock", "lagerbestand", "bestand", "lager"),
    "availability": ("availability", "availabilitystatus", "stockstatus", "verfugbarkeit", "verfuegbarkeit"),
    "seller": ("seller", "sellerid", "merchant", "merchantid", "verkaufer", "haendler"),
    "margin": ("margin", "marge"),
    "attr.url": ("url", "link", "producturl", "productlink", "deeplink", "permalink"),
}  # fmt: skip
"""Column names without case, spaces and marks; an earlier one wins."""
ONLY_PRODUCTS = ("title", "image_url", "stock", "availability", "seller", "margin", "attr.url")

KINDS: dict[str, tuple[str, ...]] = {
    "view": ("view", "views", "productview", "viewproduct", "viewitem", "itemview", "detail", "detailview", "viewed",
             "pageview", "pv", "impressiondetail", "productdetail", "watch", "read", "play"),
    "click": ("click", "clicked", "selectitem", "clickout"),
    "add_to_cart": ("addtocart", "cart", "addcart", "cartadd", "addtobasket", "basket", "addedtocart", "productadded"),
    "remove_from_cart": ("removefromcart", "cartremove", "removecart", "removefrombasket", "productremoved"),
    "purchase": ("purchase", "purchased", "transaction", "buy", "bought", "order", "ordered", "sale", "checkout",
                 "conversion", "ordercompleted", "complete"),
    "wishlist": ("wishlist", "addtowishlist", "favorite", "favourite", "fav", "like", "save", "bookmark"),
    "share": ("share", "shared"),
    "search": ("search", "searched", "viewsearchresults"),
    "return": ("return", "returned", "refund", "refunded", "cancellation"),
    "dislike": ("dislike", "thumbsdown"),
    "rating": ("rating", "rate", "rated", "review"),
    "product": ("product",),
    "product_gone": ("productgone", "productdeleted"),
    "impression": ("impression",),
    "erasure": ("erasure",),
}  # fmt: skip
"""Event types by the words that exports write for them, without case, spaces and marks."""
SKIP = "skip"
"""A type of `--kinds` whose rows are left aside."""
_KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}
_FIELD_OF = {word: (place, field) for field, words in NAMES.items() for place, word in enumerate(words)}


def plain(name: str) -> str:
    """Return a name without case, spaces and marks.

    >>> plain("Customer ID"), plain("add_to_cart")
    ('customerid', 'addtocart')
    """
    return re.sub(r"[\W_]", "", name.lower())


def kind_of(word: str) -> str | None:
    """Return the event type a word stands for, None for one we do not know."""
    return _KIND_OF.get(plain(word))


def guess(columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return which field each well-known column name stands for, as a mapping of fields to columns."""
    best: dict[str, tuple[int, str]] = {}
    for column in columns:
        place, field = _FIELD_OF.get(plain(column.rpartition(".")[2]), (-1, ""))
        if field and (field not in best or place < best[field][0]):
            best[field] = (place, column)
    return {field: (column,) for field, (_, column) in best.items()}


def fields_of(kind: str) -> tuple[str, ...]:
    """Return the fields an event of a type can have, `ts` and the lines of an order aside."""
    topic = TOPIC_OF_TYPE[kind]
    if kind == "product_gone":
        return ("item",)
    if kind == "product":
        return FIELDS["product-updates"]
    more = {"user-events": ("query",), "ratings": ("stars",)}.get(topic, ())
    return (*FIELDS.get(topic, FIELDS["interaction"]), *more)
