"""Rasters, vector files and arrays in lines for people, and what artifacts share with them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = tuple[str, str]  # what it is about (may be empty), what is said
MOST = 12  # scenes, items or subdatasets that are listed
LONG = 64  # a CRS of more letters is WKT


def say_raster(found: Mapping[str, Any]) -> Iterator[Row]:
    """Size, grid, bands, classes, storage."""
    height, width = found["shape"]
    yield "size", f"{width} x {height} px, {', '.join(found['dtypes']) or 'no bands'}"
    yield from say_grid(found["grid"])
    yield from say_bands(found["bands"], found["mask"])
    for name in found.get("subdatasets", [])[:MOST]:
        yield "holds", name
    yield from say_classes(found)
    yield from _storage(found["storage"], found["driver"])
    if "note" in found:
        yield "note", f"no command takes it as it is: {found['note']}"


def _storage(storage: Mapping[str, Any], driver: str) -> Iterator[Row]:
    words = ["cloud-optimised GeoTIFF" if storage["cog"] else driver]
    words += [storage["compression"].lower()] if storage["compression"] else []
    words.append("blocks of {1} x {0} px".format(*storage["block"]))
    smaller = " ".join(map(str, storage["overviews"]))
    words.append(f"overviews {smaller}" if smaller else "no overviews")
    yield "stored as", ", ".join(words)
    if storage["files"]:
        yield "beside it", ", ".join(storage["files"])


def say_grid(grid: Mapping[str, Any]) -> Iterator[Row]:
    """CRS, size of a pixel, place on Earth."""
    if not grid.get("crs"):
        points = f", {grid['gcps']} ground control points" if grid.get("gcps") else ""
        yield "grid", f"no CRS{points}"
        return
    yield (
        "grid",
        grid["crs_name"] if len(grid["crs"]) > LONG else f"{grid['crs']}, {grid['crs_name']}",
    )
    pixel = "{:.10g} x {:.10g} {}".format(*grid["pixel"], grid["unit"])
    yield "pixel", pixel + (f", {metres(grid['gsd_m'])} on the ground" if "gsd_m" in grid else "")
    if "lonlat" in grid:
        place = "{:.5f}, {:.5f}, {:.5f}, {:.5f}".format(*grid["lonlat"])
        yield "place", f"{place} (west, south, east, north in degrees)"


def metres(length: float) -> str:
    """A length of four digits."""
    return f"{length:.4g} m" if length < 10_000 else f"{length:.0f} m"


def say_bands(bands: Sequence[Mapping[str, Any]], mask: str | None = None) -> Iterator[Row]:
    """Bands in one row, and what tells valid pixels."""
    if bands:
        yield "bands", "; ".join(map(say_band, bands))
    if bands and mask:
        yield "valid by", mask


def say_band(band: Mapping[str, Any]) -> str:
    """One band: name, wavelength, unit, how stored values are to be taken."""
    words = [str(band["name"])]
    if band.get("common_name") and band["common_name"] != band["name"]:
        words.append(f"({band['common_name']})")
    if band.get("color", band["name"]) != band["name"]:
        words.append(f"({band['color']})")
    if band.get("wavelength_nm"):
        words.append(f"{band['wavelength_nm']:g} nm")
    if band.get("unit"):
        words.append(f"in {band['unit']}")
    scale, offset = band.get("scale", 1), band.get("offset", 0)
    if (scale, offset) != (1, 0):
        words.append(f"= stored * {scale:.10g} {'-' if offset < 0 else '+'} {abs(offset):.10g}")
    if band.get("nodata") is not None:
        words.append(f"nodata {float(band['nodata']):g}")
    return " ".join(words)


def say_classes(found: Mapping[str, Any], of: str = "px") -> Iterator[Row]:
    """Classes with colours; counts and shares where pixels were counted, by fold in columns."""
    classes = found.get("classes") or []
    folds = list(classes[0].get("count_by_fold", ())) if classes else []
    wide = max((len(c["name"]) for c in classes), default=0)
    total = sum(c.get("count", 0) for c in classes) or 1
    if folds:
        heads = "".join(fold.rjust(11) for fold in folds)
        yield "classes", " " * (wide + 13) + f"labelled {of}".rjust(14) + heads
    for i, one in enumerate(classes):
        text = f"{one['id']:>3} {one['name']:{wide}}  {one['color']}"
        text += f"{one['count']:>14}" if "count" in one else ""
        text += "".join(str(one["count_by_fold"][fold]).rjust(11) for fold in folds)
        text += f" {of} {100 * one['count'] / total:5.1f} %" if "count" in one and not folds else ""
        yield ("" if i or folds else "classes"), text
    step = found.get("sampled", {}).get("step", 1)
    if step > 1:
        yield "", f"counted on one pixel of {step} x {step}"


def say_vector(found: Mapping[str, Any]) -> Iterator[Row]:
    """Layers with their columns, and the values of those that may hold classes."""
    for layer in found["layers"]:
        kind, crs = layer.get("geometry") or "no geometries", layer.get("crs") or "no CRS"
        yield "layer", f"{layer['name']}: {layer['count']} features, {kind}, {crs[:LONG]}"
        if layer.get("bounds"):
            yield "bounds", "{:.10g}, {:.10g}, {:.10g}, {:.10g}".format(*layer["bounds"])
        if layer.get("embeddings"):
            yield "vectors", _vectors(layer["embeddings"])
        for i, (name, kind) in enumerate(layer["columns"].items()):
            counts = layer.get("values", {}).get(name)
            said = ": " + ", ".join(f"{v} ({n})" for v, n in counts.items()) if counts else ""
            yield ("" if i else "columns"), f"{name}  {kind}{said}"
    yield "stored as", found["driver"] or "unknown"


def _vectors(about: Mapping[str, Any]) -> str:
    """Embeddings in one line."""
    parts = [f"{about['dimensions']} dimensions"]
    if about["encoder"]:
        pool = f", pool {about['pool']}" if about["pool"] else ""
        parts.append(f"encoder {about['encoder']}{pool}")
    if about.get("reduction"):
        one = about["reduction"]
        kept = f" ({one['explained']:.1%} of the variance)" if one["explained"] else ""
        parts.append(f"{one['kind']} of {one['width']}{kept}")
    if about["scale"]:
        parts.append(f"stored * {about['scale']:.6g}")
    return ", ".join(parts)


def say_array(found: Mapping[str, Any]) -> Iterator[Row]:
    """Shape and type."""
    yield "array", f"{' x '.join(map(str, found['shape']))}, {found['dtype']}"
