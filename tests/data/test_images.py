"""Pictures in folders: classes, splits, order, and pictures that do not belong."""

import struct
import zlib
from pathlib import Path

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
    with pytest.warns(DataWarning, match="1 folder holds no pictures that can be read, and is left out: 0"):
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
    with pytest.raises(DataError, match=r"b\.png: is 6x4 but a\.png is 5x4; .*with --resize, or remove"):
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
    """A picture whose left half is opaque ink, whose right half is transparent, and one column
    half so."""
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
    """Whatever the ink of each: two pictures of one class must not come out as each other's
    negative."""
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


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("train_images", "Test-Images"),
        ("1_train", "2. test"),
        ("seg_train", "seg_test"),
        ("train/images", "dev/images"),
        ("train/train", "test/test"),
    ],
)
def test_splits_with_words_around_their_names(tmp_path, train, test):
    draw(tmp_path / train / "a" / "1.png", 1)
    draw(tmp_path / test / "a" / "1.png", 2)
    draw(tmp_path / "__MACOSX" / "a" / "1.png", 3)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "readme.txt").write_text("none")
    assert load_dataset(tmp_path).images[0, 0, 0] == 1
    assert load_dataset(tmp_path, "test").images[0, 0, 0] == 2


def test_classes_whose_names_end_as_those_of_splits(tmp_path):
    for name in ("bullet_train", "crash_test"):
        draw(tmp_path / name / "1.png")
    assert load_dataset(tmp_path).labels.tolist() == ["bullet_train", "crash_test"]


@pytest.mark.parametrize("others", [["extra"], ["training"]])
def test_splits_beside_other_pictures_are_not_guessed_at(tmp_path, others):
    for name in ("train", "test", *others):
        draw(tmp_path / name / "a" / "1.png")
    for ask in (load_dataset, lambda path: has_split(path, "test")):
        with pytest.raises(DataError, match=r"holds pictures in .*train.*, and it is unclear whether"):
            ask(tmp_path)


def test_test_pictures_without_classes_are_no_test_split(tmp_path):
    draw(tmp_path / "train" / "a" / "1.png", 1)
    draw(tmp_path / "test" / "1.png", 2)
    assert not has_split(tmp_path, "test") and load_dataset(tmp_path).labels.tolist() == ["a"]


def test_pictures_that_belong_to_no_class_are_said(tmp_path):
    draw(tmp_path / "a" / "1.png", 1)
    draw(tmp_path / "b" / "more" / "2.png", 2)
    draw(tmp_path / "preview.png", 3)
    (tmp_path / "a" / "3.heic").write_bytes(b"x")
    (tmp_path / "a" / "notes.txt").write_bytes(b"x")
    with pytest.warns(DataWarning) as said:
        assert load_dataset(tmp_path).labels.tolist() == ["a"]
    texts = [str(warning.message) for warning in said]
    assert "1 pictures beside the folders of classes are left out: preview.png" in texts[0]
    assert "deeper than the folders of classes are left out: b/more" in texts[1]
    assert "unknown formats are left out (1 .heic)" in texts[2] and len(texts) == 3


@pytest.mark.parametrize(
    ("split", "empty", "said"),
    [
        ("train", "set/train/c", "set/train: 1 folder holds no pictures that can be read, and is left out: c"),
        ("test", "set/test/b/sub", "set/test: 1 folder holds no pictures that can be read, and is left out: b"),
        ("train", "set/validation/a", "set: 1 folder holds no pictures that can be read, and is left out: validation"),
        ("train", "set/train/d 1 2 3", "set/train: 4 folders hold no pictures that can be read, and are left out: 1, "),
    ],
)
def test_folders_without_pictures_beside_others_are_named(tmp_path, split, empty, said):
    for name in ("train/a", "train/b", "test/a", "test/b")[: 3 if "b/sub" in empty else 4]:
        draw(tmp_path / "set" / name / "1.png", 1)
    folder, *more = empty.split()
    for name in (folder, *(str(Path(folder).parent / other) for other in more)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "notes.txt").write_bytes(b"x")
    with pytest.warns(DataWarning) as warned:
        data = load_dataset(tmp_path, split)
    assert set(data.labels.tolist()) == ({"a"} if "b/sub" in empty else {"a", "b"})
    assert [str(each.message).removeprefix(f"{tmp_path}/")[: len(said)] for each in warned] == [said]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cat/train/1.png", "cat/test/1.png", "dog/train/1.png"],
         "no pictures that can be used: there are some in cat/test, cat/train, dog/train. Expected one sub-folder"),
        (["readme.png", "set/a/1.png", "set/b/1.png"], "holds pictures itself and in set/a, set/b; name the folder"),
        (["a/1.heic", "a/2.HEIC", "b/1.avif"], r"that can be read, but others \(1 .avif, 2 .heic\); save them as PNG"),
        (["labels.xls", "a.txt"], "holds no pictures; found a.txt, labels.xls. Expected one sub-folder"),
    ],
    ids=["splits in classes", "a picture at the top", "unreadable", "none"],
)  # fmt: skip
def test_what_is_found_instead_is_said(tmp_path, files, message):
    for name in files:
        if name.endswith("png"):
            draw(tmp_path / name)
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


def test_netpbm_pictures_are_read(tmp_path):
    draw(tmp_path / "a" / "1.pgm", 7)
    draw(tmp_path / "b" / "1.ppm", (9, 9, 9), mode="RGB")
    assert load_dataset(tmp_path).images[:, 0, 0].tolist() == [7, 9]


# -- pictures of other sizes ----------------------------------------------------------------------


def test_pictures_of_any_size_are_brought_to_one(tmp_path):
    draw(tmp_path / "1.png", 50, (5, 4))
    draw(tmp_path / "2.jpg", 50, (300, 200))
    draw(tmp_path / "3.png", (50, 50, 50, 255), (3, 30), "RGBA")
    Image.fromarray(np.full((9, 9), 50 * 257, np.uint16)).save(tmp_path / "4.png")
    found, _ = load_images(tmp_path, resize=(6, 8))
    assert found.shape == (4, 6, 8) and np.abs(found.astype(int) - 50).max() <= 1


def test_shrinking_smooths(tmp_path):
    """A grid of single black and white pixels becomes grey; taking every n-th pixel would keep one
    of the two."""
    grid = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(grid).save(tmp_path / "1.png")
    found, _ = load_images(tmp_path, resize=(8, 8))
    assert np.abs(found[0, 1:-1, 1:-1].astype(int) - 127).max() <= 2


def test_what_is_hidden_by_transparency_does_not_bleed_into_a_smaller_picture(tmp_path):
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[:, :20] = (0, 0, 0, 255)  # opaque black beside white that nobody sees
    rgba[:, 20:, :3] = 255
    Image.fromarray(rgba, "RGBA").save(tmp_path / "1.png")
    with pytest.warns(DataWarning, match="put on white"):
        found, _ = load_images(tmp_path, resize=(10, 10))
    assert (found[0, :, :3] == 0).all() and (found[0, :, 7:] == 255).all()


def test_a_picture_is_turned_before_it_is_resized(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.zeros((10, 40), np.uint8)
    wide[:, :20] = 255  # upright: 40 high, its upper half white
    Image.fromarray(wide).save(tmp_path / "1.png", exif=exif)
    found, _ = load_images(tmp_path, resize=(8, 4))
    assert (found[0, :3] == 255).all() and (found[0, 5:] == 0).all()


def test_a_camera_s_picture_needs_resizing_and_then_is_read(tmp_path):
    draw(tmp_path / "1.jpg", (90, 90, 90), (4000, 3000), "RGB")
    with pytest.raises(DataError, match="is 4000x3000, more than 4,194,304 pixels; make it smaller with --resize"):
        load_images(tmp_path)
    found, _ = load_images(tmp_path, resize=(28, 28))
    assert found.shape == (1, 28, 28) and np.abs(found.astype(int) - 90).max() <= 1


def test_a_picture_that_promises_more_pixels_than_its_bytes_can_hold_is_not_begun(tmp_path):
    draw(tmp_path / "a.png")
    for size, message in (((8000, 8000), "says it is 8000x8000, and has"), ((9000, 9000), "more than 67,108,864")):
        (tmp_path / "a.png").write_bytes(resized((tmp_path / "a.png").read_bytes(), *size))
        with pytest.raises(DataError, match=message):
            load_images(tmp_path, resize=(8, 8))


def test_images_of_arrays_are_resized_as_pictures_are(tmp_path, rng):
    images = rng.integers(0, 256, (3, 20, 30)).astype(np.uint8)
    for number, image in enumerate(images):
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "p" / f"{number}.png")
    np.savez(tmp_path / "a.npz", images=images, labels=[1, 2, 3])
    as_pictures, _ = load_images(tmp_path / "p", resize=(7, 9))
    np.testing.assert_array_equal(load_dataset(tmp_path / "a.npz", resize=(7, 9)).images, as_pictures)
    np.testing.assert_array_equal(load_images(tmp_path / "a.npz", resize=(7, 9))[0], as_pictures)


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
        ((10_000, 10_000), "is 10000x10000, more than 4,194,304 pixels; make it smaller with --resize"),
        ((2049, 2048), "is 2049x2048, more than 4,194,304 pixels; make it smaller with --resize"),
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
    for format_name in ("EPS", "TGA", "ICO"):
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
