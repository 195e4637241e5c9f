"""What verify says about damaged vector files in an edition: `landcover vectorize` writes them again."""

from pathlib import Path

import numpy as np

from pipeline.products.manifest import write_manifest
from pipeline.runs.quality.verify_nation import check_nation
from tests.support.vector_editions import write_edition


def test_damaged_vector_files_are_named_and_vectorized_again(tmp_path: Path) -> None:
    folder = write_edition(tmp_path / "national", np.ones((50, 50), np.uint8), tile=50)
    for name in ("vectors", "vectors-D034_2021"):
        (folder / name).mkdir()
        (folder / name / "vectors.json").write_text("record")
        write_manifest(folder / name, ["vectors.json"])
    before = check_nation(tmp_path / "national", "EPSG:2154")
    assert before.vectors == ()
    (folder / "vectors" / "vectors.json").write_text('{"tolerance_m": 2.5}')
    assert before.vectorize_options("vectors") == ["--tolerance", "2.5"]
    (folder / "vectors" / "vectors.json").write_text("record")
    (folder / "vectors-D034_2021" / "vectors.json").write_text("changed")
    found = check_nation(tmp_path / "national", "EPSG:2154")
    assert (found.vectors, found.report, found.publish) == (("vectors-D034_2021",), False, before.publish)
    assert found.vectorize_options("vectors-D034_2021") == ["--domain", "D034_2021"]
    assert found.problems is not None
    assert "vectors-D034_2021/vectors.json: has 7 bytes" in found.problems[-1]
