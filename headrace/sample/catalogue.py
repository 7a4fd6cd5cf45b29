"""The products of the sample shop, one a line."""

from typing import NamedTuple


class SampleProduct(NamedTuple):
    """A product and how visitors use it."""

    item: str
    title: str
    brand: str
    price: float
    stock: int
    shape: str
    """Which picture of `pictures.SHAPES` it has."""
    colour: str
    lasts_days: int
    """Days until it is used up and bought again; 0: it lasts."""
    with_it: tuple[str, ...]
    """Items that are bought together with it."""


P = SampleProduct
SHOP: dict[str, tuple[SampleProduct, ...]] = {
    "drinks/tea": (
        P("sencha", "Sencha, spring harvest", "Kaito", 12.90, 84, "tin", "#5b8c5a", 18, ("kyusu", "matcha")),
        P("matcha", "Matcha, stone-ground", "Kaito", 24.50, 35, "tin", "#7fb069", 24, ("whisk", "tea-bowl")),
        P("genmaicha", "Genmaicha with roasted rice", "Kaito", 9.80, 60, "tin", "#a5a058", 20, ("kyusu", "sencha")),
        P("assam", "Assam, second flush", "Harrow & Vale", 8.40, 120, "bag", "#8c4a2f", 16, ("teapot", "earl-grey")),
        P("earl-grey", "Earl Grey with bergamot", "Harrow & Vale", 7.90, 140, "bag", "#3d5a80", 16,
          ("teapot", "assam")),
        P("rooibos", "Rooibos with vanilla", "Harrow & Vale", 6.90, 95, "bag", "#b5533c", 21, ("honey", "teapot")),
        P("kyusu", "Kyusu, side-handle teapot", "Kaito", 46.00, 12, "pot", "#6d4c3d", 0, ("sencha", "tea-bowl")),
        P("teapot", "Teapot, 1 litre", "Harrow & Vale", 34.00, 18, "pot", "#d9dcd6", 0, ("assam", "earl-grey")),
        P("whisk", "Bamboo whisk", "Kaito", 14.50, 26, "tool", "#c9a66b", 0, ("matcha", "tea-bowl")),
        P("tea-bowl", "Tea bowl, grey glaze", "Kaito", 22.00, 20, "cup", "#7d8491", 0, ("matcha", "whisk")),
    ),
    "drinks/coffee": (
        P("espresso", "Espresso, dark roast, 500 g", "Nord Roast", 13.50, 150, "bag", "#3b2417", 14,
          ("moka-pot", "espresso-cup")),
        P("filter-coffee", "Filter coffee, Ethiopia, 250 g", "Nord Roast", 9.90, 110, "bag", "#7b4b2a", 12,
          ("filter-papers", "dripper")),
        P("decaf", "Decaf, Colombia, 250 g", "Nord Roast", 9.50, 55, "bag", "#8f6f56", 17,
          ("filter-papers", "dripper")),
        P("filter-papers", "Filter papers, 100", "Brewster", 4.20, 300, "box", "#efe6d5", 30,
          ("filter-coffee", "dripper")),
        P("moka-pot", "Moka pot, 6 cups", "Brewster", 29.00, 22, "pot", "#9aa0a8", 0, ("espresso", "espresso-cup")),
        P("dripper", "Pour-over dripper", "Brewster", 18.50, 30, "cup", "#e8ddd0", 0, ("filter-papers", "scale")),
        P("grinder", "Hand grinder, steel burr", "Brewster", 64.00, 14, "tool", "#4a4e57", 0,
          ("filter-coffee", "scale")),
        P("scale", "Coffee scale, 0.1 g", "Brewster", 27.00, 25, "box", "#2f3237", 0, ("dripper", "grinder")),
        P("espresso-cup", "Espresso cups, set of 2", "Harrow & Vale", 16.00, 40, "cup", "#c8553d", 0,
          ("espresso", "moka-pot")),
        P("oat-drink", "Oat drink for baristas, 6 × 1 l", "Nord Roast", 14.90, 80, "bottle", "#d8c9a7", 12,
          ("espresso", "filter-coffee")),
    ),
    "kitchen/baking": (
        P("flour", "Bread flour, 5 kg", "Mill Lane", 8.90, 90, "bag", "#e9dcc3", 21, ("yeast", "banneton")),
        P("rye-flour", "Rye flour, 2.5 kg", "Mill Lane", 6.40, 70, "bag", "#b79f7d", 24, ("flour", "banneton")),
        P("yeast", "Dry yeast, 10 sachets", "Mill Lane", 3.20, 200, "box", "#d4a94a", 28, ("flour", "loaf-tin")),
        P("honey", "Forest honey, 500 g", "Mill Lane", 9.20, 65, "jar", "#d18b2c", 30, ("rooibos", "flour")),
        P("banneton", "Proofing basket", "Oak & Iron", 19.00, 24, "bowl", "#c79f6d", 0, ("flour", "dough-scraper")),
        P("loaf-tin", "Loaf tin, 25 cm", "Oak & Iron", 15.50, 32, "box", "#5c6470", 0, ("yeast", "flour")),
        P("dough-scraper", "Dough scraper", "Oak & Iron", 7.50, 48, "tool", "#8a9099", 0, ("banneton", "bread-knife")),
        P("bread-knife", "Bread knife, 24 cm", "Oak & Iron", 39.00, 16, "tool", "#6b4a33", 0,
          ("bread-board", "dough-scraper")),
        P("bread-board", "Bread board, oak", "Oak & Iron", 31.00, 15, "book", "#b07f4f", 0,
          ("bread-knife", "banneton")),
        P("dutch-oven", "Dutch oven, 4 litres", "Oak & Iron", 119.00, 8, "bowl", "#9c2f2f", 0, ("flour", "banneton")),
    ),
    "bath/care": (
        P("olive-soap", "Olive soap, 3 bars", "Marisol", 9.60, 130, "bar", "#a9b388", 22, ("soap-dish", "hand-cream")),
        P("lavender-soap", "Lavender soap, 3 bars", "Marisol", 9.60, 110, "bar", "#9d8bb8", 22,
          ("soap-dish", "bath-salt")),
        P("shampoo-bar", "Shampoo bar, nettle", "Marisol", 8.50, 90, "bar", "#6f9e7c", 26,
          ("soap-dish", "conditioner")),
        P("conditioner", "Conditioner, almond", "Marisol", 11.00, 60, "bottle", "#d9b99b", 28,
          ("shampoo-bar", "hair-brush")),
        P("hand-cream", "Hand cream, calendula", "Marisol", 7.80, 100, "bottle", "#e2b04a", 25,
          ("olive-soap", "lavender-soap")),
        P("bath-salt", "Bath salt, pine", "Marisol", 12.00, 45, "jar", "#7aa095", 30, ("lavender-soap", "towel")),
        P("soap-dish", "Soap dish, beech", "Hearth", 8.90, 50, "bowl", "#c4a57b", 0, ("olive-soap", "shampoo-bar")),
        P("towel", "Bath towel, linen", "Hearth", 36.00, 28, "cloth", "#8fb1c4", 0, ("bath-salt", "bath-mat")),
        P("bath-mat", "Bath mat, cotton", "Hearth", 29.00, 20, "cloth", "#c9cdc4", 0, ("towel", "soap-dish")),
        P("hair-brush", "Hair brush, pear wood", "Hearth", 24.00, 22, "tool", "#a06b46", 0,
          ("conditioner", "shampoo-bar")),
    ),
    "garden/balcony": (
        P("tomato-seeds", "Tomato seeds, heirloom mix", "Greenhand", 3.90, 180, "box", "#c8452f", 0,
          ("seed-tray", "potting-soil")),
        P("basil-seeds", "Basil seeds, Genovese", "Greenhand", 2.90, 210, "box", "#4f8a4b", 0,
          ("seed-tray", "herb-pot")),
        P("wildflowers", "Wildflower seeds, 10 m²", "Greenhand", 6.50, 140, "box", "#c77da8", 0,
          ("watering-can", "trowel")),
        P("potting-soil", "Potting soil, peat-free, 20 l", "Greenhand", 9.90, 75, "bag", "#4b3a2a", 24,
          ("seed-tray", "herb-pot")),
        P("plant-food", "Plant food, organic, 1 l", "Greenhand", 8.70, 85, "bottle", "#6b8e3d", 28,
          ("watering-can", "potting-soil")),
        P("seed-tray", "Seed tray with lid", "Oak & Iron", 12.50, 40, "box", "#6f7f6a", 0,
          ("tomato-seeds", "basil-seeds")),
        P("herb-pot", "Herb pot, terracotta", "Hearth", 11.00, 55, "plant", "#c56b45", 0,
          ("basil-seeds", "potting-soil")),
        P("watering-can", "Watering can, 5 litres", "Oak & Iron", 28.00, 26, "pot", "#5f8575", 0,
          ("plant-food", "wildflowers")),
        P("trowel", "Hand trowel, ash", "Oak & Iron", 17.00, 34, "tool", "#8b6a43", 0, ("gloves", "potting-soil")),
        P("gloves", "Garden gloves, goatskin", "Hearth", 21.00, 30, "cloth", "#b59b6a", 0, ("trowel", "watering-can")),
    ),
    "desk/paper": (
        P("notebook", "Notebook, dotted, A5", "Papierhaus", 14.00, 120, "book", "#2f4858", 30,
          ("fountain-pen", "pencils")),
        P("sketchbook", "Sketchbook, A4", "Papierhaus", 17.50, 70, "book", "#5a4a42", 0, ("pencils", "watercolours")),
        P("letter-paper", "Letter paper, 50 sheets", "Papierhaus", 11.50, 65, "book", "#eae3d2", 0,
          ("envelopes", "fountain-pen")),
        P("envelopes", "Envelopes, 50", "Papierhaus", 8.00, 90, "box", "#d7cbb0", 0, ("letter-paper", "ink")),
        P("ink", "Ink, midnight blue, 50 ml", "Federwerk", 13.00, 60, "bottle", "#1f2f5c", 30,
          ("fountain-pen", "notebook")),
        P("fountain-pen", "Fountain pen, fine nib", "Federwerk", 58.00, 18, "pen", "#22333b", 0, ("ink", "notebook")),
        P("pencils", "Pencils, 2B, set of 12", "Federwerk", 12.00, 85, "pen", "#e0b04b", 0,
          ("sketchbook", "sharpener")),
        P("sharpener", "Brass sharpener", "Federwerk", 9.50, 45, "tool", "#b08d3c", 0, ("pencils", "sketchbook")),
        P("watercolours", "Watercolours, 12 pans", "Federwerk", 32.00, 22, "box", "#3f7cac", 0,
          ("sketchbook", "brush-set")),
        P("brush-set", "Brushes, set of 5", "Federwerk", 23.00, 27, "pen", "#9b6a4a", 0,
          ("watercolours", "sketchbook")),
    ),
}  # fmt: skip
"""Products by category. The first of a category are the best known."""
ITEMS = {product.item: product for products in SHOP.values() for product in products}
CATEGORY_OF = {product.item: category for category, products in SHOP.items() for product in products}
