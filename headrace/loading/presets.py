"""The exports that need no mapping: a table of their columns, and what these become."""

import fnmatch
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Names = tuple[str, ...]


class Pivot(NamedTuple):
    """Rows that hold one property of an item each: (column of its name, column of its value, fields by name)."""

    name: str
    value: str
    fields: dict[str, str]


class Beside(NamedTuple):
    """Another file of the same export, whose columns are joined to each row with the same key."""

    file: str
    key: str
    columns: Names


class Clock(NamedTuple):
    """Times of an export that has only distances: columns of visitor, days since the order before, hour."""

    user: str
    days: str
    hour: str


@dataclass(frozen=True)
class Layout:
    """One file of an export: how it is recognised, and what its columns become."""

    what: str
    """What the file is, for the screen."""
    needs: Names
    """Columns that together are this export's alone."""
    columns: dict[str, Names]
    """Columns by field; the first of several that holds something counts."""
    kind: str = ""
    kinds: ReadOnly[str, str] = field(default_factory=dict)
    """Types by the words of the export."""
    others: Literal["refuse", "skip"] = "refuse"
    """What becomes of rows whose word is not among `kinds`."""
    names: Names = ()
    """Names of the columns where the file has no header."""
    files: Names = ()
    """Names of such files."""
    explode: str = ""
    """A column that holds a list of items; each becomes a row of its own."""
    fill: tuple[str, Names] | None = None
    """(key, columns): an empty cell of these columns has the value of the row before with the same key."""
    skip: ReadOnly[str, Names] = field(default_factory=dict)
    """Rows that are left aside, by column and its words in lower case."""
    keep: ReadOnly[str, Names] = field(default_factory=dict)
    """Rows that are kept, likewise; all others are left aside."""
    dates: Literal["dmy", "mdy", ""] = ""
    category: str = ""
    """What separates the parts of a category path, other than / and >."""
    least_stars: float = 0.0
    """Fewer stars than this are taken for as many."""
    pivot: Pivot | None = None
    beside: tuple[Beside, ...] = ()
    clock: Clock | None = None

    def of(self, columns: Names) -> dict[str, Names]:
        """Return the mapping, with columns as the file spells them."""
        spelled = {one.strip().lower(): one for one in columns}
        for other in self.beside:
            spelled |= {one.lower(): one for one in other.columns if one.lower() not in spelled}
        found = {
            name: tuple(spelled[one.lower()] for one in wanted if one.lower() in spelled)
            for name, wanted in self.columns.items()
        }
        return {name: wanted for name, wanted in found.items() if wanted}

    def fits(self, columns: Names) -> bool:
        """Return whether a header is this export's."""
        there = {one.strip().lower() for one in columns}
        return bool(self.needs) and all(one.lower() in there for one in self.needs)

    def fits_without_header(self, n_columns: int, file: str) -> bool:
        """Return whether a file without a header is this export's, by its name and number of columns."""
        name = file.lower().removesuffix(".gz")
        return len(self.names) == n_columns and any(fnmatch.fnmatch(name, one) for one in self.files)


_MERCHANT = {
    "item": ("id", "g:id"), "title": ("title",), "image_url": ("image_link", "image link"),
    "price": ("sale_price", "sale price", "price"), "availability": ("availability",), "brand": ("brand",),
    "category": ("product_type", "product type", "google_product_category", "google product category"),
    "attr.url": ("link",), "attr.color": ("color", "colour"), "attr.size": ("size",), "attr.gender": ("gender",),
    "attr.age_group": ("age_group", "age group"), "attr.material": ("material",), "attr.condition": ("condition",),
    "attr.group": ("item_group_id", "item group id"), "attr.label_0": ("custom_label_0", "custom label 0"),
    "attr.label_1": ("custom_label_1", "custom label 1"), "attr.label_2": ("custom_label_2", "custom label 2"),
    "attr.label_3": ("custom_label_3", "custom label 3"), "attr.label_4": ("custom_label_4", "custom label 4"),
}  # fmt: skip
_ONLINE_RETAIL = {
    "order_id": ("InvoiceNo", "Invoice"), "item": ("StockCode",), "title": ("Description",),
    "quantity": ("Quantity",), "ts": ("InvoiceDate",), "price": ("UnitPrice", "Price"),
    "user": ("CustomerID", "Customer ID"), "session": ("InvoiceNo", "Invoice"), "country": ("Country",),
}  # fmt: skip
_GA4 = {
    "ts": ("event_timestamp",), "kind": ("event_name",), "user": ("user_id",), "session": ("user_pseudo_id",),
    "item": ("items.item_id", "item_id"), "title": ("items.item_name", "item_name"),
    "brand": ("items.item_brand", "item_brand"), "category": ("items.item_category", "item_category"),
    "price": ("items.price", "price"), "quantity": ("items.quantity", "quantity"),
    "order_id": ("ecommerce.transaction_id", "transaction_id"), "country": ("geo.country", "country"),
    "query": ("event_params.search_term", "search_term"),
}  # fmt: skip
_GA4_KINDS = {
    "view_item": "view", "select_item": "click", "add_to_cart": "add_to_cart", "remove_from_cart": "remove_from_cart",
    "add_to_wishlist": "wishlist", "purchase": "purchase", "in_app_purchase": "purchase", "refund": "return",
    "view_search_results": "search", "search": "search", "share": "share",
}  # fmt: skip
_STARS: dict[str, Names] = {
    "user": ("userId", "user"),
    "item": ("movieId", "item"),
    "stars": ("rating",),
    "ts": ("timestamp",),
}
_MOVIE: dict[str, Names] = {
    "item": ("movieId",),
    "title": ("title",),
    "category": ("genres",),
    "attr.genres": ("genres",),
}

PRESETS: dict[str, tuple[Layout, ...]] = {
    "retailrocket": (
        Layout("events.csv of RetailRocket", ("visitorid", "event", "itemid", "transactionid"),
               {"user": ("visitorid",), "item": ("itemid",), "ts": ("timestamp",), "kind": ("event",),
                "order_id": ("transactionid",)},
               kinds={"view": "view", "addtocart": "add_to_cart", "transaction": "purchase"}),
        Layout("item_properties of RetailRocket", ("timestamp", "itemid", "property", "value"),
               {"item": ("itemid",), "ts": ("timestamp",), "category": ("categoryid",), "stock": ("available",)},
               kind="product", keep={"property": ("categoryid", "available")},
               pivot=Pivot("property", "value", {"categoryid": "categoryid", "available": "available"})),
    ),
    "yoochoose": (
        Layout("yoochoose-clicks of YooChoose", (), {"session": ("session",), "ts": ("time",), "item": ("item",),
               "category": ("category",)}, kind="view", names=("session", "time", "item", "category"),
               files=("yoochoose-clicks*", "yoochoose-test*", "*clicks*.dat", "*clicks*.csv")),
        Layout("yoochoose-buys of YooChoose", (), {"session": ("session",), "ts": ("time",), "item": ("item",),
               "price": ("price",), "quantity": ("quantity",)}, kind="purchase",
               names=("session", "time", "item", "price", "quantity"),
               files=("yoochoose-buys*", "*buys*.dat", "*buys*.csv")),
    ),
    "rees46": (
        Layout("events of REES46", ("event_time", "event_type", "product_id", "category_code", "user_id",
                                    "user_session"),
               {"ts": ("event_time",), "kind": ("event_type",), "item": ("product_id",), "user": ("user_id",),
                "session": ("user_session",), "category": ("category_code", "category_id"), "brand": ("brand",),
                "price": ("price",)},
               kinds={"view": "view", "cart": "add_to_cart", "remove_from_cart": "remove_from_cart",
                      "purchase": "purchase"}, category="."),
    ),
    "online-retail": (
        Layout("Online Retail of UCI", ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate",
               "UnitPrice", "CustomerID"), _ONLINE_RETAIL, kind="purchase", dates="mdy"),
        Layout("Online Retail II of UCI", ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price",
               "Customer ID"), _ONLINE_RETAIL, kind="purchase", dates="mdy"),
    ),
    "movielens": (
        Layout("ratings of MovieLens", ("userId", "movieId", "rating", "timestamp"), _STARS, kind="rating",
               least_stars=1.0),
        Layout("movies of MovieLens", ("movieId", "title", "genres"), _MOVIE, kind="product", category="|"),
        Layout("ratings.dat of MovieLens", (), _STARS, kind="rating", least_stars=1.0,
               names=("userId", "movieId", "rating", "timestamp"), files=("ratings.dat", "u.data", "u[1-5ab].*")),
        Layout("movies.dat of MovieLens", (), _MOVIE, kind="product", category="|",
               names=("movieId", "title", "genres"), files=("movies.dat",)),
    ),
    "hm": (
        Layout("transactions_train.csv of H&M", ("t_dat", "customer_id", "article_id", "sales_channel_id"),
               {"ts": ("t_dat",), "user": ("customer_id",), "item": ("article_id",), "price": ("price",),
                "order": ("t_dat",)}, kind="purchase"),
        Layout("articles.csv of H&M", ("article_id", "prod_name", "product_type_name", "product_group_name"),
               {"item": ("article_id",), "title": ("prod_name",), "category": ("product_type_name",),
                "attr.group": ("product_group_name",), "attr.colour": ("colour_group_name",),
                "attr.department": ("department_name",), "attr.index": ("index_name",),
                "attr.section": ("section_name",), "attr.garment": ("garment_group_name",)}, kind="product"),
    ),
    "instacart": (
        Layout("order_products of Instacart", ("order_id", "product_id", "add_to_cart_order", "reordered"),
               {"user": ("user_id",), "item": ("product_id",), "order_id": ("order_id",), "ts": ("ts",)},
               kind="purchase", beside=(Beside("orders.csv", "order_id", ("user_id", "ts")),),
               clock=Clock("user_id", "days_since_prior_order", "order_hour_of_day")),
        Layout("products.csv of Instacart", ("product_id", "product_name", "aisle_id", "department_id"),
               {"item": ("product_id",), "title": ("product_name",), "category": ("aisle", "aisle_id"),
                "attr.department": ("department", "department_id")}, kind="product",
               beside=(Beside("aisles.csv", "aisle_id", ("aisle",)),
                       Beside("departments.csv", "department_id", ("department",)))),
    ),
    "ga4": (
        Layout("events of Google Analytics 4 (BigQuery export)", ("event_name", "event_timestamp", "user_pseudo_id",
               "items"), _GA4, kinds=_GA4_KINDS, others="skip", explode="items"),
        Layout("events of Google Analytics 4, a row for each item", ("event_name", "event_timestamp",
               "user_pseudo_id"), _GA4, kinds=_GA4_KINDS, others="skip"),
    ),
    "shopify-orders": (
        Layout("orders of Shopify", ("Name", "Email", "Financial Status", "Created at", "Lineitem quantity",
               "Lineitem name", "Lineitem price"),
               {"order_id": ("Name",), "user": ("Email",), "session": ("Name",), "ts": ("Created at",),
                "item": ("Lineitem sku", "Lineitem name"), "title": ("Lineitem name",),
                "quantity": ("Lineitem quantity",), "price": ("Lineitem price",),
                "discount": ("Lineitem discount",), "country": ("Shipping Country", "Billing Country"),
                "brand": ("Vendor",)},
               kind="purchase", skip={"Financial Status": ("voided",)},
               fill=("Name", ("Email", "Created at", "Financial Status", "Shipping Country", "Billing Country"))),
    ),
    "shopify-products": (
        Layout("products of Shopify", ("Handle", "Title", "Vendor", "Variant Price"),
               {"item": ("Variant SKU", "Handle"), "title": ("Title",), "brand": ("Vendor",),
                "category": ("Type", "Product Category"), "price": ("Variant Price",),
                "stock": ("Variant Inventory Qty",), "image_url": ("Variant Image", "Image Src"),
                "attr.handle": ("Handle",), "attr.tags": ("Tags",), "attr.option1": ("Option1 Value",),
                "attr.option2": ("Option2 Value",), "attr.option3": ("Option3 Value",)},
               kind="product", skip={"Status": ("draft", "archived"), "Variant Price": ("",)},
               fill=("Handle", ("Title", "Vendor", "Type", "Product Category", "Tags", "Status", "Image Src"))),
        Layout("products of Shopify", ("URL handle", "Title", "Vendor", "SKU", "Price"),
               {"item": ("SKU", "URL handle"), "title": ("Title",), "brand": ("Vendor",),
                "category": ("Type", "Product category"), "price": ("Price",), "stock": ("Inventory quantity",),
                "image_url": ("Variant image URL", "Product image URL"), "attr.handle": ("URL handle",),
                "attr.tags": ("Tags",), "attr.option1": ("Option1 value",), "attr.option2": ("Option2 value",),
                "attr.option3": ("Option3 value",)},
               kind="product", skip={"Status": ("draft", "archived"), "Price": ("",)},
               fill=("URL handle", ("Title", "Vendor", "Type", "Product category", "Tags", "Status",
                                    "Product image URL"))),
    ),
    "woocommerce-orders": (
        Layout("orders of WooCommerce (Advanced Order Export)", ("Order Number", "Order Status", "Order Date",
               "Item Name"),
               {"order_id": ("Order Number",), "user": ("Customer User ID", "Email (Billing)"),
                "session": ("Order Number",), "ts": ("Order Date",), "item": ("SKU", "Product Id", "Item Name"),
                "title": ("Item Name",), "quantity": ("Quantity (- Refund)", "Quantity"), "price": ("Item Cost",),
                "country": ("Country Code (Shipping)", "Country Code (Billing)")},
               kind="purchase", fill=("Order Number", ("Email (Billing)", "Order Date", "Order Status",
                                                       "Customer User ID", "Country Code (Billing)")),
               skip={"Order Status": ("cancelled", "failed", "refunded", "pending payment", "pending")}),
        Layout("orders of WooCommerce (Customer / Order Export, one row per item)", ("order_id", "order_number",
               "billing_email", "item_name"),
               {"order_id": ("order_number", "order_id"), "user": ("billing_email", "customer_id"),
                "session": ("order_number",), "ts": ("date", "order_date"), "title": ("item_name",),
                "item": ("item_sku", "item_product_id", "item_name"), "quantity": ("item_quantity",),
                "price": ("item_price",), "country": ("shipping_country", "billing_country")},
               kind="purchase", skip={"status": ("cancelled", "failed", "refunded", "pending")}),
    ),
    "woocommerce-products": (
        Layout("products of WooCommerce", ("ID", "Type", "SKU", "Name", "Published", "Regular price", "Categories"),
               {"item": ("SKU", "ID"), "title": ("Name",), "category": ("Categories",), "brand": ("Brands",),
                "price": ("Sale price", "Regular price"), "stock": ("Stock",), "availability": ("In stock?",),
                "image_url": ("Images",), "attr.type": ("Type",), "attr.tags": ("Tags",)},
               kind="product", skip={"Published": ("0", "-1"), "Type": ("grouped",)}),
    ),
    "google-merchant": (
        Layout("a Google Merchant feed", ("id", "title", "link", "image_link", "price"), _MERCHANT, kind="product",
               category=">"),
        Layout("a Google Merchant feed", ("id", "title", "link", "image link", "price"), _MERCHANT, kind="product",
               category=">"),
        Layout("a Google Merchant feed", ("id", "title", "link", "availability"), _MERCHANT, kind="product",
               category=">"),
    ),
}  # fmt: skip


def detect(columns: Names, has_header: bool, file: str) -> tuple[str, Layout] | None:
    """Return (name, layout) of the export that a file is, None for none we know."""
    for name, layouts in PRESETS.items():
        for layout in layouts:
            if layout.fits(columns) if has_header else layout.fits_without_header(len(columns), file):
                return name, layout
    return None


def choose(name: str, columns: Names, has_header: bool, file: str) -> Layout | None:
    """Return the layout of a preset that a file has, None where it has none of them."""
    layouts = PRESETS[name]
    if has_header:
        return next((one for one in layouts if one.fits(columns)), None)
    by_name = (one for one in layouts if one.fits_without_header(len(columns), file))
    by_width = (one for one in layouts if len(one.names) == len(columns))
    return next(by_name, None) or next(by_width, None)
