"""Pictures in folders: classes, splits, order, and pictures that do not belong."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gpusvm.data import has_split, load_dataset, load_images, pixels
from gpusvm.errors import DataError, DataWarning
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
    for number, suffix in enumerate(("png", "jpg", "bmp", "gif", "JPEG", "webp", "tif", "TIFF")):
        draw(tmp_path / f"{number}.{suffix}", (200, 200, 200), mode="RGB")
    pixels, names = load_images(tmp_path)
    assert np.abs(pixels.astype(int) - 200).max() <= 1
    assert names == ["0.png", "1.jpg", "2.bmp", "3.gif", "4.JPEG", "5.webp", "6.tif", "7.TIFF"]


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


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
def test_sixteen_bits_become_eight_and_are_not_clipped(tmp_path, suffix):
    values = np.array([[0, 128, 257, 1000], [30000, 40000, 65407, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    found, _ = load_images(tmp_path)
    assert found[0].tolist() == np.rint(values / 257).astype(int).tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_that_are_no_brightness_are_refused(tmp_path, dtype):
    Image.fromarray(np.array([[0, 100_000]], dtype=dtype)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="save it with 8 or 16 bits a pixel"):
        load_images(tmp_path)


def ink(path, mode, colour):
    """A picture whose left half is opaque ink, whose right half is transparent, and one column half so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgba = np.zeros((4, 6, 4), dtype=np.uint8)
    rgba[..., :3], rgba[:, :3, 3], rgba[:, 3, 3] = colour, 255, 128
    picture = Image.fromarray(rgba, "RGBA")
    if mode == "P":
        picture = Image.fromarray((rgba[..., 3] > 200).astype(np.uint8), "P")
        picture.putpalette([255 - colour] * 3 + [colour] * 3)
        picture.info["transparency"] = 0
    elif mode == "LA":
        picture = picture.convert("LA")
    picture.save(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("colour", "background", "name"), [(0, 255, "white"), (250, 0, "black")])
def test_what_is_transparent_is_put_where_its_ink_shows(tmp_path, mode, colour, background, name):
    ink(tmp_path / "1.png", mode, colour)
    draw(tmp_path / "2.png", 77, (6, 4))
    with pytest.warns(DataWarning, match=f"1 transparent pictures were put on {name}, where their ink shows"):
        found, _ = load_images(tmp_path)
    assert (found[0][:, :3] == colour).all() and (found[0][:, 4:] == background).all()
    assert (found[1] == 77).all(), "an opaque picture beside it was changed"
    if mode != "P":
        np.testing.assert_allclose(found[0][:, 3], (colour + background) / 2, atol=1.5)


def test_one_background_serves_all_pictures(tmp_path):
    """Whatever the ink of each: two pictures of one class must not come out as each other's negative."""
    for number, colour in enumerate((0, 0, 30, 200)):
        ink(tmp_path / f"{number}.png", "RGBA", colour)
    with pytest.warns(DataWarning, match="4 transparent pictures were put on white"):
        found, _ = load_images(tmp_path)
    assert (found[:, :, 4:] == 255).all()


def test_an_alpha_channel_that_hides_nothing_is_not_spoken_of(tmp_path, recwarn):
    draw(tmp_path / "1.png", (9, 9, 9, 255), mode="RGBA")
    assert (load_images(tmp_path)[0] == 9).all()
    assert not recwarn.list


def test_pictures_are_turned_as_their_camera_says(tmp_path):
    upright = np.zeros((4, 6), dtype=np.uint8)
    upright[0] = 255
    for orientation, turns in ((1, 0), (3, 2), (6, 1), (8, 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.rot90(upright, turns)).save(tmp_path / f"{orientation}.png", exif=exif)
    found, _ = load_images(tmp_path)
    np.testing.assert_array_equal(found, np.stack([upright] * 4))


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("training", "testing"), ("train", "val"), ("TRAIN", "valid"), ("train", "validation")],
)
@pytest.mark.parametrize("outer", ["", "dataset", "archive/dataset"])
def test_splits_under_every_usual_name(tmp_path, train, test, outer):
    draw(tmp_path / outer / train / "a" / "1.png", 1)
    draw(tmp_path / outer / test / "a" / "1.png", 2)
    assert has_split(tmp_path, "train") and has_split(tmp_path, "test")
    assert load_dataset(tmp_path).images[0, 0, 0] == 1
    assert load_dataset(tmp_path, "test").images[0, 0, 0] == 2


def test_of_three_splits_the_validation_set_is_left_alone(tmp_path):
    for value, name in enumerate(("train", "val", "test")):
        draw(tmp_path / name / "a" / "1.png", value)
    assert load_dataset(tmp_path, "test").images.ravel().tolist() == [2] * 20


def test_classes_one_folder_down(tmp_path):
    draw(tmp_path / "pictures" / "a" / "1.png")
    draw(tmp_path / "pictures" / "b" / "1.png")
    assert sorted(load_dataset(tmp_path).labels.tolist()) == ["a", "b"]


def test_a_single_class_is_not_looked_into(tmp_path):
    draw(tmp_path / "only" / "1.png")
    assert load_dataset(tmp_path).labels.tolist() == ["only"]


def test_folders_without_pictures(tmp_path):
    for read in (load_dataset, load_images):
        with pytest.raises(DataError, match=r"holds no pictures; it is empty. Expected one sub-folder for each class"):
            read(tmp_path)
    for number in range(7):
        (tmp_path / f"{number}.npy").write_bytes(b"x")
    for read in (load_dataset, load_images):
        with pytest.raises(DataError, match=r"found 0\.npy, 1\.npy, 2\.npy, 3\.npy, 4\.npy and 2 more\. Expected"):
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
    for format_name in ("EPS", "PPM", "ICO"):
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
