"""Every preset reads a small invented file in the true columns of its export, recognised by them."""

import gzip
import json

import polars as pl
import pytest
from helpers.loading import bare, understood

from headrace.loading.errors import BadFile
from headrace.loading.presets import PRESETS

MS = 1_700_000_000_000
GA4 = {
    "event_date": "20240102", "event_timestamp": MS * 1000, "event_name": "purchase", "user_id": None,
    "user_pseudo_id": "p.1", "geo": {"country": "Germany"}, "ecommerce": {"transaction_id": "T1"},
    "event_params": [{"key": "ga_session_id", "value": {"int_value": 5}}],
    "items": [{"item_id": "a", "item_name": "Tea", "price": 4.5, "quantity": 2},
              {"item_id": "b", "item_name": "Cup", "price": 9.0, "quantity": 1}],
}  # fmt: skip
SHOPIFY_ORDERS = (
    "Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,"
    "Shipping Country\n"
)
SHOPIFY_PRODUCTS = (
    "Handle,Title,Vendor,Type,Option1 Value,Variant SKU,Variant Inventory Qty,Variant Price,Image Src,Status\n"
)
WOO = "ID,Type,SKU,Name,Published,In stock?,Stock,Sale price,Regular price,Categories,Images\n"
ATOM = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0">
<entry><g:id>p1</g:id><title>Green tea</title><link href="https://shop/p1"/>
<g:price>12.50 EUR</g:price></entry></feed>"""
RSS = """<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>
<item><g:id>p1</g:id><g:title>Green tea</g:title><g:link>https://shop/p1</g:link><g:image_link>https://shop/p1.jpg
</g:image_link><g:price>12.50 EUR</g:price><g:availability>out_of_stock</g:availability><g:brand>Leaf</g:brand>
<g:product_type>Drinks &gt; Tea</g:product_type></item>
<item><g:id>p2</g:id><g:title>Cup</g:title><g:link>https://shop/p2</g:link><g:image_link>https://shop/p2.jpg
</g:image_link><g:price>20 EUR</g:price><g:sale_price>15 EUR</g:sale_price><g:availability>in_stock</g:availability>
</item></channel></rss>"""

CASES = {
    "retailrocket": ("events.csv", f"timestamp,visitorid,event,itemid,transactionid\n{MS},7,transaction,a,9\n{MS},7,"
                     f"transaction,b,9\n{MS + 5},8,addtocart,a,\n",
                     [{"type": "purchase", "user": "7", "order_id": "9", "ts_ms": MS,
                       "lines": [{"item": "a"}, {"item": "b"}]},
                      {"type": "add_to_cart", "user": "8", "item": "a", "ts_ms": MS + 5}]),
    "retailrocket properties": ("item_properties_part1.csv", f"timestamp,itemid,property,value\n{MS},a,categoryid,17\n"
                                f"{MS},a,790,n55\n{MS + 1},a,available,0\n",
                                [{"type": "product", "item": "a", "category": "17", "ts_ms": MS},
                                 {"type": "product", "item": "a", "stock": 0, "ts_ms": MS + 1}]),
    "yoochoose": ("yoochoose-clicks.dat", "1,2014-04-07T10:51:09.277Z,214536502,0\n",
                  [{"type": "view", "session": "1", "item": "214536502", "category": "0", "ts_ms": 1_396_867_869_277}]),
    "yoochoose buys": ("yoochoose-buys.dat", "1,2014-04-07T10:51:09.277Z,214536502,12462,2\n",
                       [{"type": "purchase", "session": "1", "item": "214536502", "price": 12462.0, "quantity": 2.0,
                         "ts_ms": 1_396_867_869_277}]),
    "rees46": ("2019-Oct.csv", "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
               "user_session\n2019-10-01 00:00:00 UTC,cart,44,205,appliances.kitchen,aqua,33.20,u1,s1\n",
               [{"type": "add_to_cart", "user": "u1", "session": "s1", "item": "44", "brand": "aqua", "price": 33.2,
                 "category": "appliances/kitchen", "ts_ms": 1_569_888_000_000}]),
    "online-retail": ("data.csv", "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
                      "536365,85123A,HEART,6,12/1/2010 8:26,2.55,17850,United Kingdom\n"
                      "536365,71053,LANTERN,1,12/1/2010 8:26,3.39,17850,United Kingdom\n"
                      "C536379,85123A,HEART,-1,12/1/2010 9:41,2.55,,France\n",
                      [{"type": "purchase", "user": "17850", "session": "536365", "order_id": "536365", "country": "GB",
                        "ts_ms": 1_291_191_960_000, "lines": [{"item": "85123A", "quantity": 6.0, "price": 2.55},
                                                              {"item": "71053", "quantity": 1.0, "price": 3.39}]},
                       {"type": "product", "item": "71053", "title": "LANTERN", "price": 3.39,
                        "ts_ms": 1_291_191_960_000},
                       {"type": "return", "session": "C536379", "item": "85123A", "price": 2.55, "country": "FR",
                        "ts_ms": 1_291_196_460_000},
                       {"type": "product", "item": "85123A", "title": "HEART", "price": 2.55,
                        "ts_ms": 1_291_196_460_000}]),
    "movielens": ("ratings.csv", "userId,movieId,rating,timestamp\n1,31,0.5,1260759144\n",
                  [{"type": "rating", "user": "1", "item": "31", "stars": 1.0, "ts_ms": 1_260_759_144_000}]),
    "movielens 1m": ("ratings.dat", "1::1193::5::978300760\n",
                     [{"type": "rating", "user": "1", "item": "1193", "stars": 5.0, "ts_ms": 978_300_760_000}]),
    "movielens movies": ("movies.csv", 'movieId,title,genres\n11,"President, The (1995)",Comedy|Drama\n',
                         [{"type": "product", "item": "11", "title": "President, The (1995)", "category": "Comedy",
                           "attributes": {"genres": "Comedy|Drama"}}]),
    "hm": ("transactions_train.csv", "t_dat,customer_id,article_id,price,sales_channel_id\n"
           "2018-09-20,c1,0663713001,0.0508,2\n2018-09-20,c1,0541518023,0.0304,2\n2018-09-21,c1,0541518023,0.0304,2\n",
           [{"type": "purchase", "user": "c1", "ts_ms": 1_537_401_600_000,
             "lines": [{"item": "0663713001", "price": 0.0508}, {"item": "0541518023", "price": 0.0304}]},
            {"type": "purchase", "user": "c1", "ts_ms": 1_537_488_000_000,
             "lines": [{"item": "0541518023", "price": 0.0304}]}]),
    "instacart": ("order_products__prior.csv", "order_id,product_id,add_to_cart_order,reordered\n2,33120,1,1\n"
                  "1,5,1,0\n",
                  [{"type": "purchase", "user": "u9", "order_id": "1", "ts_ms": 1_451_606_400_000 + 8 * 3_600_000,
                    "lines": [{"item": "5"}]},
                   {"type": "purchase", "user": "u9", "order_id": "2", "ts_ms": 1_451_606_400_000 + 177 * 3_600_000,
                    "lines": [{"item": "33120"}]}]),
    "ga4": ("events.jsonl", json.dumps(GA4) + "\n" + json.dumps(GA4 | {"event_name": "page_view", "items": []}) + "\n",
            [{"type": "purchase", "session": "p.1", "order_id": "T1", "country": "DE", "ts_ms": MS,
              "lines": [{"item": "a", "quantity": 2.0, "price": 4.5}, {"item": "b", "quantity": 1.0, "price": 9.0}]},
             {"type": "product", "item": "a", "title": "Tea", "price": 4.5, "ts_ms": MS},
             {"type": "product", "item": "b", "title": "Cup", "price": 9.0, "ts_ms": MS}]),
    "shopify-orders": ("orders_export.csv", SHOPIFY_ORDERS + "#1001,a@x.org,paid,2024-01-15 10:23:45 -0500,2,Tea,"
                       "4.50,T-1,DE\n#1001,,,,1,Cup,9.00,,\n"
                       "#1002,b@x.org,voided,2024-01-16 10:23:45 -0500,1,Tea,4.50,T-1,\n",
                       [{"type": "purchase", "user": "a@x.org", "session": "#1001", "order_id": "#1001",
                         "country": "DE", "ts_ms": 1_705_332_225_000,
                         "lines": [{"item": "T-1", "quantity": 2.0, "price": 4.5},
                                   {"item": "Cup", "quantity": 1.0, "price": 9.0}]},
                        {"type": "product", "item": "T-1", "title": "Tea", "price": 4.5, "ts_ms": 1_705_332_225_000},
                        {"type": "product", "item": "Cup", "title": "Cup", "price": 9.0, "ts_ms": 1_705_332_225_000}]),
    "shopify-products": ("products_export.csv", SHOPIFY_PRODUCTS + "tea,Green tea,Leaf,Tea,100 g,T-1,80,4.50,"
                         "https://i/1,active\ntea,,,,250 g,T-2,0,9.50,,\ntea,,,,,,,,https://i/2,\n",
                         [{"type": "product", "item": "T-1", "title": "Green tea", "brand": "Leaf", "category": "Tea",
                           "price": 4.5, "image_url": "https://i/1", "stock": 80,
                           "attributes": {"handle": "tea", "option1": "100 g"}},
                          {"type": "product", "item": "T-2", "title": "Green tea", "brand": "Leaf", "category": "Tea",
                           "price": 9.5, "image_url": "https://i/1", "stock": 0,
                           "attributes": {"handle": "tea", "option1": "250 g"}}]),
    "woocommerce-orders": ("orders.csv", "Order Number,Order Status,Order Date,Email (Billing),SKU,Item Name,"
                           "Quantity (- Refund),Item Cost\n17,Completed,2024-01-15 10:00,a@x.org,T-1,Tea,2,4.5\n"
                           "18,Cancelled,2024-01-15 11:00,a@x.org,T-1,Tea,2,4.5\n",
                           [{"type": "purchase", "user": "a@x.org", "session": "17", "order_id": "17",
                             "ts_ms": 1_705_312_800_000, "lines": [{"item": "T-1", "quantity": 2.0, "price": 4.5}]},
                            {"type": "product", "item": "T-1", "title": "Tea", "price": 4.5,
                             "ts_ms": 1_705_312_800_000}]),
    "woocommerce-products": ("wc-product-export.csv", WOO + '12,simple,T-1,Green tea,1,1,,3.9,4.5,"Drinks > Tea, Sale",'
                             '"https://i/1, https://i/2"\n13,simple,T-2,Old tea,0,1,,,4.5,,\n'
                             '14,simple,,Cup,1,0,,,9,,\n',
                             [{"type": "product", "item": "T-1", "title": "Green tea", "category": "Drinks/Tea",
                               "price": 3.9, "image_url": "https://i/1", "stock": None,
                               "attributes": {"type": "simple"}},
                              {"type": "product", "item": "14", "title": "Cup", "price": 9.0, "stock": 0,
                               "attributes": {"type": "simple"}}]),
    "google-merchant": ("feed.xml", RSS,
                        [{"type": "product", "item": "p1", "title": "Green tea", "image_url": "https://shop/p1.jpg",
                          "price": 12.5, "brand": "Leaf", "category": "Drinks/Tea", "stock": 0,
                          "attributes": {"url": "https://shop/p1"}},
                         {"type": "product", "item": "p2", "title": "Cup", "image_url": "https://shop/p2.jpg",
                          "price": 15.0, "stock": None, "attributes": {"url": "https://shop/p2"}}]),
    "google-merchant TSV": ("feed.txt", "id\ttitle\tlink\timage link\tprice\tavailability\n"
                            "p1\tGreen tea\thttps://shop/p1\thttps://i/1\t1.299,00 EUR\tpreorder\n",
                            [{"type": "product", "item": "p1", "title": "Green tea", "image_url": "https://i/1",
                              "price": 1299.0, "stock": None, "attributes": {"url": "https://shop/p1"}}]),
}  # fmt: skip
"""By preset (and file of it): name of a file, its content, its events."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_an_export_is_recognised_and_read(tmp_path, case, packed):
    name, content, events = CASES[case]
    file = tmp_path / (name + ".gz" * packed)
    file.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    if case == "instacart":
        (tmp_path / "orders.csv").write_text("order_id,user_id,order_number,order_hour_of_day,days_since_prior_order\n"
                                             "1,u9,1,08,\n2,u9,2,09,7.0\n")  # fmt: skip
    found, findings = understood(file)
    assert bare(found) == events
    assert findings.preset == case.split()[0]
    assert not findings.refused


def test_every_preset_has_a_case():
    assert {case.split()[0] for case in CASES} == set(PRESETS)


def test_products_of_instacart_have_the_names_of_aisles_beside_them(tmp_path):
    (tmp_path / "aisles.csv").write_text("aisle_id,aisle\n96,lunch meat\n")
    file = tmp_path / "products.csv"
    file.write_text("product_id,product_name,aisle_id,department_id\n1,Ham,96,20\n")
    (product,), _ = understood(file)
    assert (product["category"], product["attributes"]) == ("lunch meat", {"department": "20"})


def test_orders_of_instacart_without_the_file_of_visitors_are_refused_in_one_line(tmp_path):
    file = tmp_path / "order_products__prior.csv"
    file.write_text(CASES["instacart"][1])
    with pytest.raises(BadFile, match=r"needs orders\.csv beside it"):
        understood(file)


def test_hm_articles_and_an_atom_feed(tmp_path):
    articles = tmp_path / "articles.csv"
    articles.write_text("article_id,prod_name,product_type_name,product_group_name,colour_group_name\n"
                        "0108775015,Strap top,Vest top,Garment Upper body,Black\n")  # fmt: skip
    (product,), _ = understood(articles)
    assert product == {"type": "product", "item": "0108775015", "title": "Strap top", "category": "Vest top",
                       "attributes": {"group": "Garment Upper body", "colour": "Black"}}  # fmt: skip
    feed = tmp_path / "atom.xml"
    feed.write_text(ATOM)
    (product,), findings = understood(feed, preset="none")
    assert product == {"type": "product", "item": "p1", "title": "Green tea", "price": 12.5,
                       "attributes": {"url": "https://shop/p1"}}  # fmt: skip
    assert findings.guessed


def test_ga4_as_parquet_has_structs_and_lists(tmp_path):
    file = tmp_path / "events.parquet"
    pl.DataFrame([GA4]).write_parquet(file)
    found, findings = understood(file)
    assert bare(found) == CASES["ga4"][2]
    assert findings.preset == "ga4"


def test_a_preset_that_the_file_has_not_names_the_columns_it_needs(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text("user,item,ts\nu,a,1700000000\n")
    with pytest.raises(BadFile, match=r"--preset hm: e\.csv has the columns user, item, ts; needed are t_dat"):
        understood(file, preset="hm")
    with pytest.raises(BadFile, match=r"--preset nil is unknown; presets are retailrocket"):
        understood(file, preset="nil")
