"""The CSV reader: Kaggle's layout, its relatives, and what it says of everything else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpusvm.data import csv
from gpusvm.errors import DataError, DataWarning

HEADER = "label,pixel0,pixel1,pixel2,pixel3\n"


def write(folder, text, name="train.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def as_text(table, separator=","):
    return "".join(separator.join(map(str, row)) + "\n" for row in table.tolist())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("csv")


tables = hnp.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 30)))


@given(pixels=tables, data=st.data(), separator=st.sampled_from([",", ", "]), end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=60, deadline=None)
def test_labelled_rows_survive_a_round_trip(folder, pixels, data, separator, end):
    # ", " takes the line by line path, which must agree with the fast one.
    labels = data.draw(hnp.arrays(np.int64, len(pixels), elements=st.integers(-(2**40), 2**40)))
    header = "label," + ",".join(f"pixel{i}" for i in range(pixels.shape[1])) + "\n"
    text = (header + as_text(np.column_stack([labels, pixels]), separator)).replace("\n", end)
    images, read = csv.read(write(folder, text))
    assert images.dtype == np.uint8 and read.dtype == np.int64
    np.testing.assert_array_equal(images.reshape(pixels.shape), pixels)
    np.testing.assert_array_equal(read, labels)


@given(pixels=tables)
@settings(max_examples=30, deadline=None)
def test_unlabelled_rows_survive_a_round_trip(folder, pixels):
    header = ",".join(f"pixel{i}" for i in range(pixels.shape[1])) + "\n"
    images, labels = csv.read(write(folder, header + as_text(pixels)))
    assert labels is None
    np.testing.assert_array_equal(images.reshape(pixels.shape), pixels)


def test_rows_as_kaggle_writes_them_are_parsed_many_at_once(tmp_path, rng, monkeypatch):
    """One by one they would take minutes for the 60,000 of MNIST."""
    monkeypatch.setattr(csv, "_parse_line", lambda *_: pytest.fail("a line was parsed alone"))
    table = np.column_stack([rng.integers(0, 10, 300), rng.integers(0, 256, (300, 784))])
    header = "label," + ",".join(f"pixel{i}" for i in range(784)) + "\n"
    for end in ("\n", "\r\n"):
        images, labels = csv.read(write(tmp_path, (header + as_text(table)).replace("\n", end)))
        np.testing.assert_array_equal(np.column_stack([labels, images.reshape(300, 784)]), table)


@given(content=st.one_of(st.binary(max_size=200), st.text('0123456789,.\n\r"- eapixl', max_size=200)))
@settings(max_examples=400, deadline=None)
def test_anything_gives_images_or_a_data_error(folder, content):
    try:
        images, labels = csv.read(write(folder, content))
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert images.ndim == 3 and images.size
    assert labels is None or len(labels) == len(images)


@given(
    row=st.integers(0, 400),
    column=st.integers(1, 64),
    cell=st.sampled_from(["x", "256", "-1", "nan", "", "0.5"]),
)
@settings(max_examples=40, deadline=None)
def test_the_cell_is_named_wherever_it_is(folder, row, column, cell):
    table = [["7"] * 65 for _ in range(401)]
    table[row][column] = cell
    text = "label," + ",".join(f"p{i}" for i in range(64)) + "\n" + "\n".join(map(",".join, table))
    with pytest.raises(DataError, match=rf"line {row + 2}, column {column + 1} \(p{column - 1}\)"):
        csv.read(write(folder, text))


def test_line_numbers_count_on_from_block_to_block(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "_BLOCK_BYTES", 10)
    path = write(tmp_path, HEADER + "1,2,3,4,5\n" * 50 + "1,2,3,4,5555\n")
    with pytest.raises(DataError, match="line 52, column 5"):
        csv.read(path)
    images, _ = csv.read(write(tmp_path, HEADER + "1,2,3,4,5\r\n" * 50))
    assert images.shape == (50, 2, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,2,3,4,5\n1,2,3,4\n", "line 3 has 4 columns where the first has 5"),
        ("1,2,3,4,5,6\n", "line 2 has 6 columns where the first has 5"),
        ("1,2,3,4,5\n1,2,x,4,5\n", r"line 3, column 3 \(pixel1\): 'x' is not a number"),
        ("1,2,3,4,nan\n", r"line 2, column 5 \(pixel3\): 'nan' is NaN"),
        ("1,2,3,4,inf\n", "column 5 .*out of range"),
        ("1,2,3,,5\n", r"column 4 \(pixel2\): '' is empty"),
        ("1,2,3,256,5\n", "column 4 .*'256' is out of range; pixels must be whole numbers from 0 to 255"),
        ("1,2,-3,25,5\n", "column 3 .*'-3' is out of range"),
        ("1,0.5,3,25,5\n", "column 2 .*'0.5' is not a whole number"),
        ("one,2,3,25,5\n", r"column 1 \(label\): 'one' is not a number; labels must be whole numbers"),
        ("1.5,2,3,25,5\n", "column 1 .*not a whole number; labels"),
        (",2,3,25,5\n", "column 1 .*is empty; labels"),
        ("1,1" + "0" * 99 + ",3,25,5\n", r"column 2 \(pixel0\): '1000"),
        (b"1,2,3,\xff,5\n", "column 4 .*is not a number"),
        ("", "has a header and no rows"),
        ("\n\n", "has a header and no rows"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, rows, message):
    path = write(tmp_path, HEADER.encode() + (rows if isinstance(rows, bytes) else rows.encode()))
    with pytest.raises(DataError, match=message) as caught:
        csv.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        ("label\n1\n", "no pixels"),
        ("label,label,pixel0\n1,2,3\n", "more than one column 'label'"),
        ("ImageId,pixel0\n1,2\n", "line 1, column 1 .*neither the label nor a pixel"),
        (b"\x1f\x8b\x08\x00binary", "is gzip, not text"),
        ("label,pixel0\n1,2\n".encode("utf-16"), "is UTF-16 text.*save it as UTF-8"),
        ("label,pixel0\n1,2\n".encode("utf-16-le"), "is UTF-16 text.*save it as UTF-8"),
        ("<!DOCTYPE html>\n<html></html>\n", "is a web page"),
        ("\n <html lang='en'>\n", "is a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*git lfs pull"),
        ("label,pixel0\r1,2\r3,4\r", "carriage returns alone"),
        ("sep=,\nlabel,pixel0\n1,2\n", "line 1 is Excel's note of the separator"),
        ("sep=;\nlabel;pixel0\n1;2\n", "line 1 is Excel's note of the separator"),
        ("# exported\nlabel,pixel0\n1,2\n", "line 1 is a comment"),
        ("label;pixel0;pixel1\n1;2;3\n", "line 1 separates its columns with semicolons; save it with commas"),
        ("1;2;3\n4;5;6\n", "line 1 separates its columns with semicolons"),
        ("label\tpixel0\tpixel1\n1\t2\t3\n", "line 1 separates its columns with tabs"),
        ("1 2 3\n4 5 6\n", "line 1 separates its columns with spaces"),
        ("label|pixel0|pixel1\n1|2|3\n", "line 1 separates its columns with bars"),
        ("label,pixel0,pixel1,fold\n1,2,3,4\n", r"line 1, column 4 \('fold'\) is neither the label nor a pixel"),
        ("sample_id,1x1,1x2,label\n1,2,3,4\n", r"line 1, column 1 \('sample_id'\) is neither the label nor a pixel"),
        ("class,class,p0,p1,p2,p3\n1,1,2,3,4,5\n", "more than one column 'class'"),
    ],
)
def test_first_lines_that_cannot_be(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        csv.read(write(tmp_path, content))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read"):
        csv.read(tmp_path / "absent.csv")


def test_without_a_header_the_number_of_columns_says_whether_there_are_labels(tmp_path):
    images, labels = csv.read(write(tmp_path, "9,1,2,3,4\n8,5,6,7,8\n"))
    assert images.shape == (2, 2, 2) and labels.tolist() == [9, 8]
    images, labels = csv.read(write(tmp_path, "1,2,3,4\n5,6,7,8\n"))
    assert images.shape == (2, 2, 2) and labels is None


def test_a_carriage_return_is_found_in_a_file_too_long_for_a_line(tmp_path):
    with pytest.raises(DataError, match="carriage returns alone"):
        csv.read(write(tmp_path, "1,2,3,4,5\r" * 500_000))


@pytest.mark.parametrize("name", ["class", "Target", "y", "digit"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_labels_under_another_usual_name_are_taken_and_that_is_said(tmp_path, name, place):
    names, row = [f"px_{k}" for k in range(4)], [1, 2, 3, 4]
    names.insert(place, name)
    row.insert(place, 7)
    text = ",".join(names) + "\n" + ",".join(map(str, row)) + "\n"
    with pytest.warns(DataWarning, match=f"the column '{name.lower()}' is taken for the labels"):
        images, labels = csv.read(write(tmp_path, text))
    assert images.ravel().tolist() == [1, 2, 3, 4] and labels.tolist() == [7]


def rows_with(rng, **columns):
    """200 rows of five columns without a header: pixels of every brightness but where `columns`
    says otherwise."""
    table = rng.integers(0, 256, (200, 5))
    for name, values in columns.items():
        table[:, {"first": 0, "last": 4}[name]] = values
    return "\n".join(",".join(map(str, row)) for row in table.tolist()) + "\n"


def test_without_a_header_labels_may_be_in_the_last_column(tmp_path, rng):
    classes = np.arange(200) % 3
    for first in (rng.integers(0, 256, 200), np.zeros(200, dtype=int), (np.arange(200) > 190).astype(int)):
        with pytest.warns(DataWarning, match="the last column, 5, is taken for the labels"):
            images, labels = csv.read(write(tmp_path, rows_with(rng, first=first, last=classes)))
        assert labels.tolist() == classes.tolist() and images.reshape(200, 4)[:, 0].tolist() == first.tolist()


def test_without_a_header_the_first_column_is_the_labels_where_the_last_is_a_pixel(tmp_path, rng):
    classes = np.arange(200) % 3
    for last in (rng.integers(0, 256, 200), np.zeros(200, dtype=int), (np.arange(200) > 190).astype(int)):
        _, labels = csv.read(write(tmp_path, rows_with(rng, first=classes, last=last)))
        assert labels.tolist() == classes.tolist()


def test_without_a_header_two_columns_that_could_be_labels_are_one_too_many(tmp_path, rng):
    text = rows_with(rng, first=rng.integers(0, 4, 200), last=np.arange(200) % 3)
    with pytest.raises(DataError, match="could be the first column or the last, column 5; add a header"):
        csv.read(write(tmp_path, text))


def test_pixels_that_make_no_square_are_one_row(tmp_path):
    images, _ = csv.read(write(tmp_path, "label,a,b,c\n1,2,3,4\n"))
    assert images.shape == (1, 1, 3)


def test_what_else_people_write(tmp_path):
    # A byte order mark, quotes, spaces, whole floats, blank lines, the label last, no final
    # newline.
    text = b'\xef\xbb\xbf"pixel0","pixel1","pixel2","pixel3","Label"\n\n 1.0, 2 ,"3",4e0,7\n\n5,6,7,8,9'
    images, labels = csv.read(write(tmp_path, text))
    assert images.reshape(2, 4).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert labels.tolist() == [7, 9]


@pytest.mark.parametrize("start", ["", HEADER, HEADER + "1,2,3,4,5\n" * 200_000])
def test_a_line_without_end_is_not_taken_in(tmp_path, start):
    number = start.count("\n") + 1
    with pytest.raises(DataError, match=f"line {number} is longer than 4,194,304 bytes"):
        csv.read(write(tmp_path, start + "1," * (3 << 20)))


def test_what_is_quoted_from_a_file_stays_on_its_line(tmp_path):
    path = write(tmp_path, b"a\x1b[2J\r" + b"x" * 999 + b",b\n1,x\n2,3\n")
    with pytest.raises(DataError) as caught:
        csv.read(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(path)) + 200
    with pytest.raises(DataError, match=r"column 1 \(a\\x1b\[2J\\rxxx"):
        csv.read(write(tmp_path, b"a\x1b[2J\r" + b"x" * 999 + b",b\nx,1\n"))
