"""Write the predicted masks of a dataset's cases into one folder, named by case id."""

from collections.abc import Sequence
from pathlib import Path

from segnetr.data.case import Case
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.inference.predictor import Prediction
from segnetr.outputs.masks.output_paths import plan_output_paths, split_suffix
from segnetr.outputs.masks.writer import write_prediction


class MaskWriter:
    """Writes predictions under the ids of their cases.

    Args:
        folder: Output folder. Created if missing.
        cases: All cases that may be written, so that names are unique.

    Raises:
        UsageError: If the folder contains the images.
    """

    def __init__(self, folder: Path, cases: Sequence[Case]) -> None:
        self._folder = folder
        wanted = [(case.image, _name(case)) for case in cases]
        plan = plan_output_paths(wanted, out=folder)
        self._names = {case.case_id: item.relative for case, item in zip(cases, plan, strict=True)}

    def write(self, case: Case, image: ImageFile | VolumeFile, prediction: Prediction) -> Path:
        """Write the mask of one case and return its path.

        Raises:
            WriteError: If it cannot be written.
        """
        relative = self._names[case.case_id]
        return write_prediction(prediction, image, out=self._folder, relative=relative)[0]


def _name(case: Case) -> Path:
    # An id may contain characters that a file name must not.
    plain = case.case_id.replace("/", "_").replace("\\", "_")
    return Path(plain + split_suffix(case.image.name)[1])
