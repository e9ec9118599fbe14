"""Pictures in folders: classes, splits, order, and pictures that do not belong."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gpusvm.data import has_split, load_dataset, load_images, pixels
from gpusvm.errors import DataError
from gpusvm.memory import peak_rss_mb, reset_peak_rss


def draw(path, value=0, size=(5, 4), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def test_folders_are_classes_and_take_turns(tmp_path):
    for name, values in {"10": (1, 2), "9": (3,), "-2": (4, 5, 6)}.items():
        for value in values:
            draw(tmp_path / name / f"{value}.png", value)
    (tmp_path / "9" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "0").mkdir()
    data = load_dataset(tmp_path)
    assert data.images.shape == (6, 4, 5) and data.images.dtype == np.uint8
    assert data.labels.dtype == np.int64
    assert set(data.labels[:3]) == {10, 9, -2}
    found = {(label, int(image[0, 0])) for label, image in zip(data.labels, data.images, strict=True)}
    assert found == {(10, 1), (10, 2), (9, 3), (-2, 4), (-2, 5), (-2, 6)}


@pytest.mark.parametrize("names", [("cat", "7"), ("3", "03")])
def test_names_that_are_not_all_different_integers_stay_strings(tmp_path, names):
    for name in names:
        draw(tmp_path / name / "a.png")
    assert sorted(load_dataset(tmp_path).labels.tolist()) == sorted(names)


def test_train_and_test_folders_are_splits(tmp_path):
    draw(tmp_path / "train" / "a" / "1.png", 1)
    draw(tmp_path / "test" / "a" / "1.png", 2)
    assert has_split(tmp_path, "train") and has_split(tmp_path, "test")
    assert load_dataset(tmp_path).images[0, 0, 0] == 1
    assert load_dataset(tmp_path, "test").images[0, 0, 0] == 2


def test_without_both_folders_there_is_only_train(tmp_path):
    draw(tmp_path / "train" / "1.png")
    draw(tmp_path / "other" / "1.png")
    assert not has_split(tmp_path, "test")
    assert sorted(load_dataset(tmp_path).labels.tolist()) == ["other", "train"]
    with pytest.raises(DataError, match="has no test split"):
        load_dataset(tmp_path, "test")


def test_colours_become_grey_in_every_format(tmp_path):
    for number, suffix in enumerate(("png", "jpg", "bmp", "gif", "JPEG")):
        draw(tmp_path / f"{number}.{suffix}", (200, 200, 200), mode="RGB")
    pixels, names = load_images(tmp_path)
    assert np.abs(pixels.astype(int) - 200).max() <= 1
    assert names == ["0.png", "1.jpg", "2.bmp", "3.gif", "4.JPEG"]


def test_a_flat_folder_has_no_labels(tmp_path):
    draw(tmp_path / "b.png", 2)
    draw(tmp_path / "a.png", 1)
    data = load_dataset(tmp_path)
    assert data.labels is None
    with pytest.raises(DataError, match="has no labels"):
        data.require_labels()
    pixels, names = load_images(tmp_path)
    assert names == ["a.png", "b.png"] and pixels[:, 0, 0].tolist() == [1, 2]


def test_one_picture(tmp_path):
    draw(tmp_path / "a.png", 9)
    pixels, names = load_images(tmp_path / "a.png")
    assert pixels.shape == (1, 4, 5) and names == ["a.png"]
    assert load_dataset(tmp_path / "a.png").labels is None


def test_the_first_picture_of_another_size_is_named(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", size=(6, 4))
    with pytest.raises(DataError, match=r"b\.png: is 6x4 but a\.png is 5x4; .*resize or remove"):
        load_images(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_unreadable_pictures(tmp_path, content):
    draw(tmp_path / "a.png", size=(50, 50))
    if content is None:
        content = (tmp_path / "a.png").read_bytes()[:60]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: .*(not a picture|cannot be read)"):
        load_images(tmp_path / "a.png")


def test_sixteen_bits_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 1000, dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        load_images(tmp_path / "a.png")


def test_folders_without_pictures(tmp_path):
    for read in (load_dataset, load_images):
        with pytest.raises(DataError, match=r"holds no pictures; expected files ending in \.bmp"):
            read(tmp_path)


def test_a_folder_by_class_is_not_what_to_predict(tmp_path):
    draw(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match="lie in sub-folders; name one of those"):
        load_images(tmp_path)


def resized(content, width, height):
    """A PNG that says it has another size."""
    header = b"IHDR" + struct.pack(">2I", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((100_000, 100_000), "cannot be read"),
        ((2**31 - 1, 1), "cannot be read"),
        ((10_000, 10_000), "is 10000x10000, more than 4,194,304 pixels; resize it"),
        ((2049, 2048), "is 2049x2048, more than 4,194,304 pixels; resize it"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_that_promises_too_much_is_not_begun(tmp_path, size, message):
    draw(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(resized((tmp_path / "a.png").read_bytes(), *size))
    reset_peak_rss()
    before = peak_rss_mb()
    with pytest.raises(DataError, match=message):
        load_images(tmp_path / "a.png")
    assert peak_rss_mb() - before < 10


def test_pictures_that_together_do_not_fit_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "available_mb", lambda: 60.0)
    draw(tmp_path / "a.png", size=(2048, 2048))
    for number in range(20):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "a.png")
    with pytest.raises(DataError, match="takes 84 MB of memory, and 60 MB are free"):
        load_images(tmp_path)


def test_other_formats_are_not_tried(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: pytest.fail("Ghostscript was run"))
    for format_name in ("EPS", "TIFF", "PPM", "WEBP", "ICO"):
        Image.new("RGB", (16, 16)).save(tmp_path / "a", format_name)
        (tmp_path / "a").rename(tmp_path / "a.png")
        with pytest.raises(DataError, match="not a picture"):
            load_images(tmp_path / "a.png")


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="larger than 64 MB"):
        load_images(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("inside", "link"),
    [
        ("1.png", "2.png"),
        ("a/1.png", "a/2.png"),
        ("a/1.png", "b"),
        ("train/a/1.png", "train/b"),
        ("test/1.png", "train"),
    ],
    ids=["picture", "picture of a class", "class", "class of a split", "split"],
)
def test_links_that_lead_out_of_the_folder_are_refused(tmp_path, inside, link):
    draw(tmp_path / "outside" / "1.png")
    draw(tmp_path / "set" / inside)
    if inside.startswith("train"):
        draw(tmp_path / "set" / "test" / "1.png")
    target = tmp_path / "outside" / ("1.png" if link.endswith(".png") else "")
    (tmp_path / "set" / link).symlink_to(target)
    with pytest.raises(DataError, match=f"{link}: is a link that leads out of"):
        load_dataset(tmp_path / "set")


def test_links_inside_the_folder_are_followed(tmp_path):
    draw(tmp_path / "set" / "a" / "1.png", 7)
    (tmp_path / "set" / "b").mkdir()
    (tmp_path / "set" / "b" / "1.png").symlink_to("../a/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    assert load_dataset(tmp_path / "link").images[:, 0, 0].tolist() == [7, 7]
