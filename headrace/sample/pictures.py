"""Drawn pictures of the sample shop's products, as data URIs."""

from urllib.parse import quote

SHAPES = {
    "tin": '<rect x="55" y="62" width="90" height="98" rx="8"/><rect x="50" y="46" width="100" height="20" rx="6" '
           'opacity=".75"/><rect x="68" y="92" width="64" height="36" rx="4" fill="#fff" opacity=".8"/>',
    "bag": '<path d="M62 56h76l12 104a8 8 0 0 1-8 8H58a8 8 0 0 1-8-8z"/><path d="M62 56l8-18h60l8 18z" opacity=".7"/>'
           '<circle cx="100" cy="114" r="24" fill="#fff" opacity=".8"/>',
    "pot": '<ellipse cx="96" cy="116" rx="50" ry="42"/><path d="M142 100l34-22 6 8-36 44z"/>'
           '<rect x="72" y="62" width="48" height="12" rx="6" opacity=".75"/><circle cx="96" cy="54" r="8"/>',
    "cup": '<path d="M52 76h80v40a40 40 0 0 1-80 0z"/><path d="M132 84h10a20 20 0 0 1 0 40h-12" fill="none" '
           'stroke-width="9"/><rect x="44" y="160" width="96" height="8" rx="4" opacity=".6"/>',
    "tool": '<rect x="92" y="92" width="16" height="80" rx="8" opacity=".75"/><path d="M70 30h60l-10 62H80z"/>',
    "box": '<rect x="46" y="60" width="108" height="100" rx="6"/><path d="M46 60l14-20h80l14 20z" opacity=".7"/>'
           '<rect x="64" y="88" width="72" height="34" rx="4" fill="#fff" opacity=".8"/>',
    "bottle": '<rect x="66" y="76" width="68" height="94" rx="12"/><rect x="86" y="36" width="28" height="44" rx="6" '
              'opacity=".75"/><rect x="76" y="104" width="48" height="36" rx="4" fill="#fff" opacity=".8"/>',
    "jar": '<rect x="58" y="66" width="84" height="98" rx="16"/><rect x="64" y="44" width="72" height="20" rx="5" '
           'opacity=".7"/><rect x="72" y="98" width="56" height="34" rx="4" fill="#fff" opacity=".8"/>',
    "bowl": '<path d="M36 88h128a64 64 0 0 1-128 0z"/>'
            '<rect x="76" y="150" width="48" height="12" rx="5" opacity=".7"/>',
    "bar": '<rect x="40" y="112" width="120" height="46" rx="14"/><rect x="56" y="66" width="88" height="46" rx="14" '
           'opacity=".75"/>',
    "cloth": '<path d="M52 44h96v112q-24 18-48 0t-48 0z"/><path d="M52 68h96v14H52z" fill="#fff" opacity=".55"/>',
    "plant": '<path d="M64 112h72l-10 56H74z"/><g fill="#4f8a4b"><ellipse cx="100" cy="72" rx="14" ry="38"/>'
             '<ellipse cx="72" cy="86" rx="28" ry="13"/><ellipse cx="128" cy="86" rx="28" ry="13"/></g>',
    "book": '<rect x="54" y="38" width="92" height="128" rx="6"/><rect x="54" y="38" width="16" height="128" rx="6" '
            'fill="#000" opacity=".2"/><rect x="86" y="64" width="44" height="10" rx="4" fill="#fff" opacity=".8"/>',
    "pen": '<g transform="rotate(35 100 100)"><rect x="90" y="28" width="20" height="112" rx="6"/>'
           '<path d="M90 140h20l-10 34z" opacity=".7"/></g>',
}  # fmt: skip
"""What is drawn, on 200 × 200, in the colour of the product."""


def picture(shape: str, colour: str) -> str:
    """Return a product's picture as a data URI of less than 2,048 bytes."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200"><rect width="200" height="200" fill="{colour}" '
        f'opacity=".14"/><g fill="{colour}" stroke="{colour}" stroke-width="0">{SHAPES[shape]}</g></svg>'
    )
    return "data:image/svg+xml," + quote(svg.replace('"', "'"), safe="=:/,'")
