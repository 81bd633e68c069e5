"""How a user spells each verb: one file a verb and its line here; nothing heavy above the body."""

COMMANDS = {  # verb: the first line of its docstring, so that listing the verbs imports none
    "fetch": "Find scenes in a STAC catalog and keep the pixels of an area.",
    "tile": "Cut scenes and their labels into tiles to train on.",
    "train": "Fit a model on labelled tiles.",
    "embed": "Turn imagery into vectors, and ask vectors for what is alike.",
    "predict": "Map rasters with a trained model and write COGs.",
    "align": "Move rasters onto a reference, and polygons onto imagery.",
    "evaluate": "Score maps against reference data.",
    "list": "Name the parts there are: encoders, heads, metrics, ...",
    "info": "Describe an artifact or a raster, check it, say where it came from.",
    "help": "Explain a command or a topic, such as exit-codes.",
}
TOPICS = {  # of `geoml help`
    "exit-codes": "What the exit statuses mean.",
    "artifacts": "The files that travel between commands.",
    "models": "What --model takes, and the card of an ONNX file.",
    "pipes": "What is read from stdin and written to stdout.",
}
