"""DICOM and NIfTI files, written by the libraries that read them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from fedkd import config, data, optional
from fedkd.data import Dataset
from fedkd.data.readers.pictures import medical
from fedkd.errors import ConfigError, DataError

DRAWS = np.random.default_rng(13)


def read(path: Path, targets: str = "classes", **keys: object) -> Dataset:
    asked = config.validate(config.Data, {"name": str(path), **keys})
    return data.load(asked, seed=0, targets=targets)


def dicom(path: Path, values: np.ndarray, **tags: object) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = CTImageStorage
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = generate_uid()
    found.PatientName, found.Modality = "Nobody^At all", "CT"
    colour = values.shape[-1] == 3
    found.Rows, found.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    found.BitsAllocated = found.BitsStored = values.dtype.itemsize * 8
    found.HighBit = found.BitsStored - 1
    found.PixelRepresentation = int(values.dtype.kind == "i")
    found.SamplesPerPixel = 3 if colour else 1
    found.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        found.PlanarConfiguration = 0
    for tag, value in tags.items():
        setattr(found, tag, value)
    found.PixelData = values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path, enforce_file_format=True)


def nifti(path: Path, values: np.ndarray, directions: tuple[int, int, int] = (1, 1, 1)) -> None:
    """Write values (X, Y, Z), whose axes point right, forward and up, or back where -1."""
    nibabel = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*directions, 1]).astype(float)), path)


def test_dicom_is_read_in_the_units_of_its_header(tmp_path: Path) -> None:
    values = DRAWS.integers(0, 4000, (5, 6), dtype=np.uint16)
    for part in ("train", "test"):
        dicom(tmp_path / part / "ill" / "a.dcm", values, RescaleSlope=1, RescaleIntercept=-1024)
        dicom(tmp_path / part / "well" / "IM0001", values.astype(np.int16) - 1024)  # no ending
    with pytest.raises(DataError, match=r"a\.dcm has values from .*say data\.range .*data\.window"):
        read(tmp_path)
    found = read(tmp_path, window=[-160, 240])
    assert found.class_names == ("ill", "well")
    expected = (values.astype(np.float64) - 1024 + 160).clip(0, 400) / 400
    for x in found.train.x:
        assert torch.allclose(x[0], torch.from_numpy(expected).float())


def test_bytes_colours_inverted_and_several_frames(tmp_path: Path) -> None:
    grey, colour = (DRAWS.integers(0, 256, (4, 5, *c), dtype=np.uint8) for c in ((), (3,)))
    dicom(tmp_path / "grey.dcm", grey)
    dicom(tmp_path / "inverted.dcm", 255 - grey, PhotometricInterpretation="MONOCHROME1")
    dicom(tmp_path / "colour.dcm", colour)
    frames = DRAWS.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    dicom(tmp_path / "frames.dcm", frames, NumberOfFrames=3)
    read = {file.stem: medical.dicom(file) for file in tmp_path.glob("*.dcm")}
    assert np.array_equal(read["grey"], grey[..., None])
    assert np.array_equal(read["inverted"], grey[..., None])
    assert np.array_equal(read["colour"], colour)
    assert np.array_equal(read["frames"], frames[..., None])
    assert {each.dtype for each in read.values()} == {np.dtype(np.uint8)}


def test_a_volume_lies_alike_however_its_file_has_it(tmp_path: Path) -> None:
    values = DRAWS.random((4, 5, 3)).astype(np.float32)
    for part in ("train", "test"):
        nifti(tmp_path / part / "a" / "one.nii", values)
        nifti(tmp_path / part / "a" / "two.nii.gz", values[::-1, :, ::-1], (-1, 1, -1))
    x = read(tmp_path).train.x
    assert x.shape == (2, 1, 3, 5, 4)  # slices from feet to head, front first, left first
    assert torch.equal(x[0], x[1])
    assert torch.equal(x[0, 0, 2, 0], torch.from_numpy(values[:, -1, 2].copy()))
    assert read(tmp_path, size=[7, 9]).train.x.shape == (2, 1, 3, 7, 9)


def test_slices_are_records_of_one_side_with_their_masks(tmp_path: Path) -> None:
    for n in range(8):
        values = np.full((4, 5, 3), n / 8, np.float32)
        mask = np.broadcast_to(np.arange(3) == 1, (4, 5, 3)) * (n + 1.0)
        nifti(tmp_path / "images" / f"p{n}.nii.gz", values)
        nifti(tmp_path / "masks" / f"p{n}.nii.gz", mask.astype(np.float32))
    with pytest.raises(DataError, match=r"data\.slices = true"):
        read(tmp_path, "masks")
    found = read(tmp_path, "masks", slices=True, test_share=0.4)
    assert len(found.train) + len(found.test) == 24
    for part in (found.train, found.test):
        patients = (part.x[:, 0, 0, 0] * 8).round().long()
        assert (patients.bincount() % 3 == 0).all()
        middle = torch.arange(len(part)) % 3 == 1
        assert torch.equal(part.y[:, 0, 0], torch.where(middle, patients + 1, 0))
    tiled = read(tmp_path, "masks", slices=True, tile=4, test_share=0.4)
    assert tiled.shape == (1, 4, 4)


def test_a_key_or_a_file_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    nifti(tmp_path / "train" / "a" / "series.nii", np.zeros((4, 5, 3, 2), np.float32))
    nifti(tmp_path / "test" / "a" / "x.nii", np.zeros((4, 5, 3), np.float32))
    with pytest.raises(
        DataError, match=r"series\.nii has float32 of shape \(4, 5, 3, 2\); expecte"
    ):
        read(tmp_path)
    nifti(tmp_path / "train" / "a" / "series.nii", np.zeros((4, 5, 4), np.float32))
    with pytest.raises(DataError, match=r"one size: data\.size = 64 or \[64, 80\] brings slices"):
        read(tmp_path)
    (tmp_path / "train" / "a" / "series.nii").write_bytes(b"no volume")
    with pytest.raises(DataError, match=r"series\.nii cannot be read as NIfTI") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "train" / "a" / "series.nii").unlink()
    pytest.importorskip("pydicom")
    (tmp_path / "train" / "a" / "x.dcm").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.dcm cannot be read as DICOM"):
        read(tmp_path)


def test_a_library_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.dcm").write_bytes(b"")

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(optional.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"'pydicom' is not installed: pip install 'fedkd\[med"):
        read(tmp_path)


def test_a_volume_that_would_fill_memory_is_refused_by_its_header(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    header = nibabel.Nifti1Header()
    header.set_data_shape((30_000, 30_000, 30_000))
    for part in ("train", "test"):
        file = tmp_path / part / "a" / "bomb.nii.gz"
        file.parent.mkdir(parents=True)
        file.write_bytes(gzip.compress(header.binaryblock + bytes(100)))
    with pytest.raises(DataError, match=r"bomb\.nii\.gz unpacks from .* to 1\.08e\+05 GB"):
        read(tmp_path)
