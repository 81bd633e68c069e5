"""The STAC Item of a model, as pystac's own MLM extension reads it."""

import pystac
import pytest
from pystac.extensions.mlm import MLMExtension, TaskType

from geoml_cli.formats.model import mlm_item

POLYGON = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
HEAD = {
    "bands": [{"name": "red"}, {"name": "nir"}],
    "dates": ["2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z"],
    "encoder": "unet",
    "head": "linear",
    "window": 64,
    "started_from": None,
}
CLASSES = [{"id": 0, "name": "land"}, {"id": 1, "name": "water"}]


@pytest.mark.parametrize(
    ("aim", "classes", "task", "shape"),
    [
        ({"kind": "classes", "per": "pixel"}, CLASSES, TaskType.SEMANTIC_SEGMENTATION, [-1, 2, 64, 64]),
        ({"kind": "classes", "per": "tile"}, CLASSES, TaskType.SCENE_CLASSIFICATION, [-1, 2]),
        ({"kind": "present", "per": "tile"}, CLASSES, TaskType.SCENE_CLASSIFICATION, [-1, 2]),
        ({"kind": "values", "per": "pixel"}, [], TaskType.REGRESSION, [-1, 2, 64, 64]),
        ({"kind": "values", "per": "pixel", "fills": True}, [], TaskType.GENERATIVE, [-1, 2, 64, 64]),
    ],
)  # fmt: skip
def test_a_model_says_what_it_is_for(aim, classes, task, shape):
    head = HEAD | {"aim": aim, "classes": classes, "network": {"outputs": 2}}
    item = pystac.Item.from_dict(mlm_item("m", head, POLYGON, [0, 0, 1, 1], 10))
    told = MLMExtension.ext(item)
    assert told.tasks == [task] and told.total_parameters == 10 and told.pretrained is False
    [out] = told.output
    assert out.tasks == [task] and out.result.shape == shape
    assert len(out.result.dim_order) == len(shape)
    assert [one.name for one in out.classes or []] == [one["name"] for one in classes]
    assert told.input[0].input.shape == [-1, 2, 64, 64]
