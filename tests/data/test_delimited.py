"""Tables as text: every dialect gives the same numbers, and what is no table is refused by what it
is."""

import bz2
import gzip
import shlex
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpusvm.data import Dataset, Table, delimited, load_dataset, load_samples
from gpusvm.data.column_faults import UnusableColumnsError
from gpusvm.data.table import TableOptions
from gpusvm.errors import DataError, DataWarning
from gpusvm.memory import peak_rss_mb, reset_peak_rss

PLAIN = "age,bmi,label\n63,23.5,yes\n41,30.25,no\n57,-1e-3,yes\n"
X = [[63.0, 23.5], [41.0, 30.25], [57.0, -0.001]]
LABELS = ["yes", "no", "yes"]


def write(folder, text, name="t.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def read(folder, text, name="t.csv", **options):
    return delimited.read(write(folder, text, name), TableOptions(**options))


def in_dialect(separator, decimal="."):
    return PLAIN.replace(".", decimal).replace(",", "\0").replace("\0", separator) if separator != "," else PLAIN


DIALECTS = {
    "commas": PLAIN,
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "spaces": PLAIN.replace(",", "  "),
    "spaces at the end": PLAIN.replace(",", " ").replace("\n", " \n"),
    "semicolons, decimal commas": PLAIN.replace(",", ";").replace(".", ",").replace("-1e-3", "-0,001"),
    "tabs, decimal commas": PLAIN.replace(",", "\t").replace(".", ","),
    "comma and space": PLAIN.replace(",", ", "),
    "byte order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, no mark": PLAIN.encode("utf-16-le"),
    "UTF-16, big end first": PLAIN.encode("utf-16-be"),
    "CR LF": PLAIN.replace("\n", "\r\n"),
    "CR": PLAIN.replace("\n", "\r"),
    "no end of line at the end": PLAIN.rstrip(),
    "sep= line": "sep=;\n" + PLAIN.replace(",", ";"),
    "comments": "# exported\n\n# by hand\n" + PLAIN.replace("41", "# between\n41"),
    "blank lines": "\n" + PLAIN.replace("\n", "\n\n"),
    "quoted": '"age","bmi","label"\n"63","23.5","yes"\n"41",30.25,no\n57,"-1e-3","yes"\n',
    "quotes over two lines": PLAIN.replace("age,", "age,note,").replace(
        "63,", '63,"a ""b"",\nc",').replace("41,", "41,d,").replace("57,", "57,,"),
    "separator at the end": PLAIN.replace("\n", ",\n"),
    "header in a comment": "# age bmi label\n" + PLAIN.replace(",", " ").partition("\n")[2],
    "gzip": gzip.compress(PLAIN.encode()),
    "bzip2": bz2.compress(PLAIN.encode()),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects(tmp_path, dialect):
    found = read(tmp_path, DIALECTS[dialect], drop=("note",) if "two lines" in dialect else ())
    assert found.X.tolist() == X and found.labels.tolist() == LABELS
    assert found.columns == ("age", "bmi") and found.label_name == "label"


def test_the_dialect_is_found_whatever_the_file_is_called(tmp_path):
    for name in ("t.tsv", "t.txt", "t.data", "t", "t.csv.gz"):
        assert load_dataset(write(tmp_path, DIALECTS["tabs"], name)).X.tolist() == X


def test_windows_encoding_is_read_and_said(tmp_path):
    with pytest.warns(DataWarning, match="is not UTF-8; it is read as Windows-1252"):
        found = read(tmp_path, PLAIN.replace("no", "né").encode("cp1252"))
    assert found.labels.tolist() == ["yes", "né", "yes"]


@given(
    table=hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(2, 6)),
                     elements=st.floats(-1e300, 1e300, allow_nan=False)),
    separator=st.sampled_from([",", ";", "\t", " "]), decimal=st.sampled_from([".", ","]),
)  # fmt: skip
@settings(max_examples=80)
def test_numbers_survive_a_round_trip(tmp_path_factory, table, separator, decimal):
    decimal = "." if separator == "," else decimal
    rows = [separator.join(repr(value).replace(".", decimal) for value in row) for row in table.tolist()]
    names = separator.join(f"c{k}" for k in range(table.shape[1] - 1)) + separator + "label"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        path = write(tmp_path_factory.mktemp("t"), "\n".join([names, *rows]))
        found = delimited.read(path, TableOptions())
    np.testing.assert_array_equal(found.X, table[:, :-1])
    np.testing.assert_array_equal(found.labels.astype(float), table[:, -1])


def test_numpys_reader_and_the_careful_one_agree(tmp_path, rng, monkeypatch):
    rows = "\n".join(
        ",".join(map(repr, row)) + f",{'ab'[k % 2]}" for k, row in enumerate(rng.normal(size=(300, 5)).tolist())
    )
    text = "a,b,c,d,e,label\n" + rows
    monkeypatch.setattr(delimited._Parser, "_parse_by_cell", lambda *_: pytest.fail("a cell was parsed alone"))
    fast = read(tmp_path, text)
    monkeypatch.undo()
    monkeypatch.setattr(delimited._Parser, "_parse_at_once", lambda *_: None)
    careful = read(tmp_path, text)
    np.testing.assert_array_equal(fast.X, careful.X)
    assert fast.labels.tolist() == careful.labels.tolist()


@pytest.mark.parametrize(
    ("labels", "expected", "dtype"),
    [
        ("1 0 1", [1, 0, 1], "int64"),
        ("1.0 2.0 -1", [1, 2, -1], "int64"),
        ("1.5 2.0 -1", [1.5, 2.0, -1.0], "float64"),
        ("b 1 c", ["b", "1", "c"], "<U1"),
    ],
)
def test_labels_are_whole_numbers_real_numbers_or_words(tmp_path, labels, expected, dtype):
    text = "a,label\n" + "".join(f"0.5,{label}\n" for label in labels.split())
    found = read(tmp_path, text).labels
    assert found.tolist() == expected and found.dtype == dtype


class TestWhichColumnHoldsTheLabels:
    @pytest.mark.parametrize("name", ["Target", "class", "y", "diagnosis", "Species"])
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_a_usual_name_is_taken_and_that_is_said(self, tmp_path, name, place):
        names, row = ["u", "v"], ["1.5", "2"]
        names.insert(place, name)
        row.insert(place, "7")
        with pytest.warns(DataWarning, match=f"the column '{name}' is taken for the labels"):
            found = read(tmp_path, ",".join(names) + "\n" + ",".join(row))
        assert found.X.tolist() == [[1.5, 2.0]] and found.labels.tolist() == [7] and found.label_name == name

    @pytest.mark.parametrize("label", ["v", "V", "2", "-2"])
    def test_it_can_be_named_or_numbered(self, tmp_path, label):
        found = read(tmp_path, "u,v,w\n1.5,2,3\n2.5,1,4\n", label=label)
        assert found.labels.tolist() == [2, 1] and found.columns == ("u", "w")

    def test_two_usual_names_are_one_too_many(self, tmp_path):
        with pytest.raises(DataError, match="could be 'class' or 'target'; say which"):
            read(tmp_path, "a,class,target\n1,2,3\n")
        assert read(tmp_path, "a,class,target\n1,2,3\n", label="target", drop=("class",)).columns == ("a",)

    @pytest.mark.parametrize("place", [0, 2])
    def test_words_at_an_end_are_labels_with_a_header_or_without(self, tmp_path, place):
        rows = [["1.5", "2"], ["2.5", "1"], ["3.5", "1"], ["4.5", "1"]]
        for row, word in zip(rows, "abab", strict=True):
            row.insert(place, word)
        text = "\n".join(",".join(row) for row in rows) + "\n"
        for header in ("", "p,q,r\n"):
            with pytest.warns(DataWarning, match=f"the {'last' if place else 'first'} column, .* is taken"):
                found = read(tmp_path, header + text)
            assert found.labels.tolist() == list("abab") and found.X.shape == (4, 2)

    def test_without_a_header_numbers_like_labels_at_one_end_are_taken(self, tmp_path, rng):
        values, classes = rng.normal(size=(60, 2)), np.arange(60) % 3
        for columns, place in (((values, classes[:, None]), "last"), ((classes[:, None], values), "first")):
            text = "\n".join(",".join(f"{v:g}" for v in row) for row in np.hstack(columns))
            with pytest.warns(DataWarning, match=f"the {place} column"):
                found = read(tmp_path, text)
            assert found.labels.tolist() == classes.tolist() and found.X.shape == (60, 2)

    def test_a_feature_named_as_labels_are_is_said(self, tmp_path, recwarn):
        """Beside the labels that were asked for it may be these once more, and accuracy is 1
        without a reason."""
        text = "a,Class,target\n1,0,u\n2,1,v\n3,0,u\n4,1,v\n"
        with pytest.warns(DataWarning, match=r"'Class' is named as labels usually are, and is taken for a feature; .*"
                          r"\(--drop Class\)"):  # fmt: skip
            assert read(tmp_path, text, label="target").columns == ("a", "Class")
        recwarn.clear()
        assert read(tmp_path, text, label="target", drop=("Class",)).columns == ("a",)
        assert read(tmp_path, text, label="target", columns=("Class",)).columns == ("Class",)
        assert not [each for each in recwarn if "usually" in str(each.message)]

    def test_without_a_header_two_ends_like_labels_are_one_too_many(self, tmp_path, rng):
        table = np.column_stack([np.arange(60) % 2, rng.normal(size=60), np.arange(60) % 3])
        text = "\n".join(",".join(f"{v:g}" for v in row) for row in table)
        with pytest.raises(DataError, match="first column or the last; say which: --label 1 or --label 3"):
            read(tmp_path, text)
        assert read(tmp_path, text, label="-1").labels.tolist() == (np.arange(60) % 3).tolist()
        assert read(tmp_path, text, n_features=3).X.shape == (60, 3)

    def test_numbers_under_a_header_are_labels_only_where_that_is_said(self, tmp_path):
        table = load_dataset(write(tmp_path, "u,v\n0.5,1\n1.5,0\n2.5,1\n0.5,0\n"))
        assert table.labels is None and table.columns == ("u", "v")
        with pytest.raises(DataError, match="--label NAME"):
            table.require_labels()

    def test_a_name_that_is_not_there(self, tmp_path):
        with pytest.raises(DataError, match=r"no column 'z', which --label names; it has the columns 'u', 'v'"):
            read(tmp_path, "u,v\n1,2\n", label="z")
        with pytest.raises(DataError, match=r"no column 'z', which --drop names; without a header .* columns 1 to 3"):
            read(tmp_path, "1,2,3\n4,5,6\n", drop=("z",))


class TestWhichColumnsAreFeatures:
    @pytest.mark.parametrize("name", ["id", "Id", "ImageId", "sample_id", "Unnamed: 0"])
    def test_ids_are_never_features_and_name_the_rows(self, tmp_path, name):
        with pytest.warns(DataWarning, match=f"the column '{name}' is an id, and left out"):
            found = read(tmp_path, f"{name},a,label\nx7,1.5,0\nx9,2.5,1\n")
        assert found.columns == ("a",) and found.ids.tolist() == ["x7", "x9"] and found.id_name == name

    @pytest.mark.parametrize("name", ["patient_id", "index", "No", "caseId", "row number"])
    def test_names_that_may_be_ids_are_where_they_count_rows_or_are_words(self, tmp_path, name):
        for values in ((3, 2, 4), ("p1", "p2", "p2")):
            with pytest.warns(DataWarning, match=f"the column '{name}' is an id"):
                found = read(tmp_path, f"{name},a,label\n" + "".join(f"{v},1.5,0\n" for v in values))
            assert found.columns == ("a",)
        found = read(tmp_path, f"{name},a,label\n1.5,1,0\n7,1,0\n")
        assert found.columns == (name, "a") and found.X[:, 0].tolist() == [1.5, 7.0]

    def test_numbers_that_all_differ_are_ids_by_their_name_and_others_are_said(self, tmp_path):
        rows = [f"{7000 + 3 * k % 101},{k % 5},{k % 2}\n" for k in range(30)]
        for name in ("CustomerID", "patient_id"):
            with pytest.warns(DataWarning, match=f"the column '{name}' is an id, and left out"):
                assert read(tmp_path, f"{name},a,label\n" + "".join(rows)).columns == ("a",)
            with pytest.warns(DataWarning, match=f"'{name}' is named as an id, .*--drop {name}"):
                assert read(tmp_path, f"{name},a,label\n" + "".join(rows + rows)).columns == (name, "a")
        with pytest.warns(DataWarning, match="column 1, which has no name, numbers the rows"):
            read(tmp_path, ",a,label\n" + "".join(rows))

    def test_labels_that_differ_in_case_alone_are_said(self, tmp_path):
        with pytest.warns(DataWarning, match="'yes' and 'Yes' differ in case alone"):
            assert set(read(tmp_path, "a,label\n1,yes\n2,Yes\n3,no\n").labels) == {"yes", "Yes", "no"}

    @pytest.mark.parametrize("row", ["kg,m,u", "a,b,label", "Total,,u", ",x,v"])
    def test_one_odd_row_is_named(self, tmp_path, row):
        rows = [f"{k}.5,{k},{'uv'[k % 2]}" for k in range(6)]
        with pytest.raises(UnusableColumnsError, match=r"line 5 alone holds no numbers in 'a' .*remove it, or leave"):
            read(tmp_path, "\n".join(["a,b,label", *rows[:3], row, *rows[3:]]))

    def test_acids_are_no_ids(self, tmp_path):
        found = read(tmp_path, "citric acid,humid,label\n1,2,0\n2,3,1\n")
        assert found.columns == ("citric acid", "humid")

    def test_pandas_writes_the_row_numbers_without_a_name(self, tmp_path):
        with pytest.warns(DataWarning, match="column 1, which has no name, numbers the rows"):
            assert read(tmp_path, ",a,label\n0,1.5,0\n1,2.5,1\n").columns == ("a",)

    def test_r_leaves_out_the_name_of_the_row_names(self, tmp_path):
        found = read(tmp_path, '"a" "b" "label"\n"1" 1.5 2 "u"\n"2" 2.5 3 "v"\n')
        assert found.columns == ("a", "b") and found.labels.tolist() == ["u", "v"]

    def test_columns_are_left_out_by_name_or_number(self, tmp_path):
        assert read(tmp_path, PLAIN, drop=("AGE",)).columns == ("bmi",)
        assert read(tmp_path, PLAIN.partition("\n")[2], drop=("1",)).X.tolist() == [[row[1]] for row in X]

    def test_a_model_finds_its_columns_by_name(self, tmp_path):
        text = "note,bmi,label,age\nx,23.5,yes,63\ny,30.25,no,41\n"
        with pytest.warns(DataWarning, match="the column 'note' is none of the model's features, and left out"):
            table = load_samples(write(tmp_path, text), kind="table", columns=("age", "bmi"))
        assert table.X.tolist() == X[:2] and table.columns == ("age", "bmi") and table.labels.tolist() == ["yes", "no"]
        with pytest.raises(DataError, match="lacks the columns 'hr', 'sex' that the model needs; it has the columns"):
            load_samples(write(tmp_path, text), kind="table", columns=("age", "hr", "sex"))

    def test_a_model_finds_its_columns_whatever_their_case_and_labels_need_not_be_there(self, tmp_path):
        table = load_samples(write(tmp_path, "BMI;Age\n1,5;2\n"), kind="table", columns=("age", "bmi"), label="target")
        assert table.X.tolist() == [[2.0, 1.5]] and table.labels is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n# only\n", "is empty"),
        ("a,b,label\n", "has a header and no rows"),
        ("a\n1\n2\n", "has one column"),
        ("a,b,a\n1,2,3\n", "columns 1 and 3 are both named a"),
        ("a,b,label\n1,2,3\n1,2\n", "line 3 has 2 columns where the first has 3"),
        ("a,b,label\n1,2,3\n\n1,2,3,4\n", "line 4 has 4 columns where the first has 3"),
        ("a,b,label\n1,2,3\n1,x,3\n", r"line 3, column 2 \(b\): 'x' is not a number; leave .* \(--drop b\)"),
        ("u,v,w,t\n1,x,2,3\n2,y,2,3\n", r"line 2, column 2 \(v\): 'x' .*--drop v.*encode.*--label v"),
        ("a,b,label\n1,2,3\n1,1_0,3\n", "'1_0' is not a number"),
        ("a,b,label\n1,2,3\n1,inf,3\n", r"line 3, column 2 \(b\): the value is infinite, as in 1 of 2 rows; replace"),
        ("a,b,label\n1,,0\n1,NA,0\n2,2,1\n", r"line 2, column 2 \(b\): .* missing, as in 2 of 3 rows; fill them in"),
        ("a,b,label\n1,,0\n1,NA,0\n?,2,1\n", r"missing in 'a' \(1 of 3 rows\), 'b' \(2 of 3.*--drop a --drop b"),
        ("a,b,label\n1,12 %,3\n", "'12 %' has a percent sign; .*export plain numbers"),
        ("a,b,label\n1,$12,3\n", r"'\$12' has a currency sign"),
        ("a,b,label\n1,2021-03-04,3\n", "'2021-03-04' is a date or a time"),
        ("a,b,label\n1,yes,3\n1,true,3\n", "'yes' is not a number"),
        ("a,b,label\n1,yes,3\n1,0,3\n", "'yes' is not a number"),
        ("a,b,label\n1,yes,3\n1,,3\n", "the value is missing, as in 1 of 2 rows"),
        ("a,b,label\n1,2,0\n1,2,\n1,2,NA\n", r"labels \(label\): 2 of 3 labels are missing, the first \(''\) in row 2"),
        ('a,b,label\n"1,234.5",2,0\n', "'1,234.5' has marks between thousands"),
        ("a;b;label\n1.5;2;0\n1,5;2;0\n", "'1,5' has a decimal comma, and others a point"),
        ('a,b,label\n1.5,"2,000",0\n1.5,"37,250",1\n', "'2,000' has a comma between thousands, or as its decimal mark"),
        ("a;b;label\n1,5;12.345;0\n2,25;1.000;1\n0,5;7;1\n",
         r"has decimal commas \('1,5'\), and points that seem to stand between thousands \('12.345'\); export it with"),
        ("a,label\n1," + "x" * 300 + "\n2,y\n", "is too long for a label"),
        ("label,id\n1,2\n", "no column of features left"),
        ("<!DOCTYPE html>\n<html></html>\n", "is a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid 0\n", "Git LFS pointer"),
        ('[{"a": 1, "label": 0}]', "is JSON; save the table as CSV"),
        ('{"a": [1, 2]}', "is JSON"),
        ("%PDF-1.7\n", "is a PDF"),
        ("Sales of 2021,,\n,,\na,b,label\n1,2,0\n3,4,1\n", r"line 1 \('Sales of 2021'\) is a title over the table"),
        ("Sales of 2021\n\na;b;label\n1;2;0\n3;4;1\n", r"line 1 \('Sales of 2021'\) is a title over the table"),
        (b"ARROW1\0\0", "Feather"),
        (b"\x80\x05\x95\0\0", "a pickle"),
        (b"PK\x03\x04....", "a zip archive, or an Excel workbook"),
        (b"\xfd7zXZ\x00", "packed with xz"),
        (b"a,b\n\x00\x01\x02\x03,\x00\n", "is no text"),
        ("a,b\n1,2\n".encode("utf-32"), "UTF-32"),
        (gzip.compress(PLAIN.encode(), mtime=0)[:-9], "is truncated"),
        ("a,b,label\n" + "1,2,3\n" * 300_000 + "1,\x00,3\n", "no text from line"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::gpusvm.errors.DataWarning")
def test_what_is_wrong_is_said(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        delimited.read(path, TableOptions())
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


PEOPLE = "name,age,sex,fare,port,kg,label\n" + "A,30,m,1,x,5,0\nB,,f,2,y,6,1\nC,40,m,,x,7,1\nD,?,f,3,,8,0\n"


@pytest.mark.filterwarnings("ignore::gpusvm.errors.DataWarning")
@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize("header", [True, False])
def test_all_columns_that_cannot_be_used_are_named_and_leaving_them_out_is_a_cure(tmp_path, monkeypatch, block, header):
    monkeypatch.setattr("gpusvm.data.text.BLOCK_CHARACTERS", block)  # every line goes alone, or all go together
    path = write(tmp_path, PEOPLE if header else PEOPLE.partition("\n")[2])
    with pytest.raises(UnusableColumnsError) as caught:
        load_dataset(path, label="-1")
    faults = caught.value.faults
    assert [(fault.column, fault.words, fault.n_missing, fault.n_rows) for fault in faults] == [
        (0, ("A", "B", "C", "D"), 0, 4), (1, (), 2, 4), (2, ("m", "f"), 0, 4), (3, (), 1, 4), (4, ("x", "y"), 1, 4),
    ]  # fmt: skip
    names = ("name", "age", "sex", "fare", "port") if header else ("1", "2", "3", "4", "5")
    assert f"({' '.join(f'--drop {name}' for name in names)})" in str(caught.value)
    table = load_dataset(path, label="-1", drop=names)
    assert table.X.tolist() == [[5.0], [6.0], [7.0], [8.0]] and table.labels.tolist() == [0, 1, 1, 0]


@pytest.mark.filterwarnings("ignore::gpusvm.errors.DataWarning")
def test_a_line_names_the_kinds_of_faults_and_is_cut_short(tmp_path):
    with pytest.raises(UnusableColumnsError) as caught:
        read(tmp_path, PEOPLE)
    assert str(caught.value).endswith(
        "t.csv: 3 columns hold no numbers: 'name' ('A'), 'sex' ('m'), 'port' ('x'); values are missing in 'age' (2 of 4"
        " rows), 'fare' (1 of 4 rows); encode them as numbers, fill in what is missing, or leave the columns out"
        " (--drop name --drop age --drop sex --drop fare --drop port)"
    )
    say = r"'last' \('v'\); say which column holds the labels \(--label NAME\), encode the others"
    with pytest.raises(UnusableColumnsError, match=say):
        read(tmp_path, "a,sex,last\n1,m,v\n2,f,u\n3,f,u\n4,m,v\n")
    with pytest.raises(UnusableColumnsError, match=r"line 2, column 2 \(pay\): '1 000' has marks .*\(--drop pay\)"):
        read(tmp_path, "a,pay,last\n1,1 000,v\n2,2 000,u\n3,30,u\n4,5,v\n")
    wide = ",".join(f"c{k}" for k in range(300)) + ",label\n" + "x," * 300 + "1\n"
    with pytest.raises(UnusableColumnsError, match="--drop c11 and 288 more; gpusvm data show lists them") as caught:
        read(tmp_path, wide)
    assert len(caught.value.faults) == 300 and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "option"),
    [("my col", "'my col'"), ("it's", "'it'\"'\"'s'"), ("x" * 60, "1"), ("$HOME", "'$HOME'"), ("a\tb", "1")],
)
@pytest.mark.filterwarnings("ignore::gpusvm.errors.DataWarning")
def test_the_option_that_is_named_works_in_a_shell(tmp_path, name, option):
    path = write(tmp_path, f'"{name}",b,label\nu,1,0\nv,2,1\nw,2,1\n')
    with pytest.raises(UnusableColumnsError) as caught:
        read(tmp_path, path.read_text())
    assert f"(--drop {option})" in str(caught.value)
    assert load_dataset(path, kind="table", drop=shlex.split(option)).columns == ("b",)


@pytest.mark.parametrize("words", [("True", "False"), ("TRUE", "FALSE"), ("yes", "no"), ("Yes", "No")])
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_words_of_truth_are_one_and_zero(tmp_path, monkeypatch, words, block):
    monkeypatch.setattr("gpusvm.data.text.BLOCK_CHARACTERS", block)
    text = "a,b,c,label\n" + "".join(f"{k},{words[k % 2]},{words[0]},{words[k % 2]}\n" for k in range(4))
    with pytest.warns(DataWarning, match="the columns 'b', 'c' hold words of truth, read as 1"):
        contents = read(tmp_path, text)
    assert contents.X.tolist() == [[0, 1, 1], [1, 0, 1], [2, 1, 1], [3, 0, 1]]
    assert contents.labels.tolist() == [words[k % 2] for k in range(4)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_a_bar_over_the_reading_changes_nothing(tmp_path, monkeypatch, pack):
    text = "a,b,label\n" + "".join(f"{k},{k / 3},{k % 2}\n" for k in range(200_000))
    path = write(tmp_path, pack(text.encode()))
    expected = load_dataset(path)
    monkeypatch.setattr("gpusvm.data.packed._LARGE_BYTES", 0)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert load_dataset(path, progress=True).digest == expected.digest


@pytest.mark.parametrize("row", [0, 7, 400])
@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_the_cell_is_named_wherever_it_is(tmp_path, monkeypatch, row, separator):
    monkeypatch.setattr("gpusvm.data.text.BLOCK_CHARACTERS", 300)
    rows = [["1.5"] * 5 for _ in range(401)]
    rows[row][3] = "x"
    text = "\n".join(separator.join(cells) for cells in [["a", "b", "c", "d", "label"], *rows])
    with pytest.raises(DataError, match=rf"line {row + 2}, column 4 \(d\): 'x'"):
        read(tmp_path, text)


def test_commas_that_may_part_thousands_are_said_to_be_decimal(tmp_path):
    with pytest.warns(DataWarning, match=r"commas are taken for decimal marks: 1,234 is 1\.234"):
        assert read(tmp_path, "a;label\n1,234;0\n5,678;1\n").X.tolist() == [[1.234], [5.678]]


def test_a_table_takes_about_twice_its_memory_to_read(tmp_path):
    line = ",".join(["0.123456789"] * 40) + ",1\n"
    path = write(tmp_path, ",".join(f"f{k}" for k in range(40)) + ",label\n" + line * 60_000)
    reset_peak_rss()
    before = peak_rss_mb()
    found = delimited.read(path, TableOptions())
    assert found.X.shape == (60_000, 40)
    assert peak_rss_mb() - before < 3 * found.X.nbytes / 2**20


class TestImagesOrTable:
    @staticmethod
    def rows(rng, n_columns, high=256, label=True):
        table = rng.integers(0, high, (60, n_columns))
        return np.column_stack([np.arange(60) % 3, table]) if label else table

    @staticmethod
    def text(table, names=(), separator=","):
        lines = [separator.join(names)] if names else []
        return "\n".join([*lines, *(separator.join(map(str, row)) for row in table.tolist())])

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_pixels_are_images_in_any_dialect(self, tmp_path, rng, separator):
        table = self.rows(rng, 64)
        for names in ((), ("label", *(f"pixel{k}" for k in range(64)))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)
                data = load_dataset(write(tmp_path, self.text(table, names, separator)))
            assert isinstance(data, Dataset) and data.image_shape == (8, 8)
            assert data.images.reshape(60, 64).tolist() == table[:, 1:].tolist()
            assert data.labels.tolist() == table[:, 0].tolist()

    def test_pixels_with_words_for_labels_and_row_numbers(self, tmp_path, rng):
        names = ("", *(f"pixel{k}" for k in range(64)), "label")
        rows = [[k, *row, "ABC"[k % 3]] for k, row in enumerate(self.rows(rng, 64, label=False).tolist())]
        text = "\n".join(",".join(map(str, row)) for row in [names, *rows])
        data = load_dataset(write(tmp_path, text))
        assert isinstance(data, Dataset) and data.labels.tolist()[:3] == ["A", "B", "C"]

    def test_a_column_that_is_no_pixel_is_refused_by_name(self, tmp_path, rng):
        names = ("label", *(f"pixel{k}" for k in range(64)), "fold")
        path = write(tmp_path, self.text(self.rows(rng, 65, high=5), names))
        with pytest.raises(DataError, match=r"\('fold'\) is neither the label nor a pixel"):
            load_dataset(path)
        assert load_dataset(path, drop=("fold",)).image_shape == (8, 8)

    @pytest.mark.parametrize("separator", [",", ";"])
    @pytest.mark.parametrize("name", ["sample_id", "id", "row_id"])
    def test_an_id_among_pixels_is_refused_by_name_too(self, tmp_path, rng, name, separator):
        table = np.column_stack([self.rows(rng, 64), np.arange(60)])
        path = write(tmp_path, self.text(table, ("label", *(f"pixel{k}" for k in range(64)), name), separator))
        with pytest.raises(DataError, match=f"'{name}'.* is neither the label nor a pixel"):
            load_dataset(path)
        assert load_dataset(path, drop=(name,)).image_shape == (8, 8)

    def test_features_with_names_of_their_own_are_a_table(self, tmp_path, rng):
        data = load_dataset(write(tmp_path, self.text(self.rows(rng, 9), ("label", *"abcdefghi"))))
        assert isinstance(data, Table) and data.n_features == 9

    @pytest.mark.parametrize("n", [4, 9, 16, 49])
    def test_a_few_whole_numbers_are_features_unless_their_names_say_pixel(self, tmp_path, rng, n):
        rows = self.rows(rng, n, high=16)
        for names in ((), ("label", *(f"x{k}" for k in range(n)))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)
                assert isinstance(load_dataset(write(tmp_path, self.text(rows, names)), label="1"), Table)
        path = write(tmp_path, self.text(rows, ("label", *(f"pixel{k}" for k in range(n)))))
        assert isinstance(load_dataset(path), Dataset)
        path = write(tmp_path, self.text(rows, ("label", *(f"x{k}" for k in range(n)))))
        assert isinstance(load_dataset(path, kind="images"), Dataset)

    def test_pixels_that_are_none_are_a_table_and_that_is_said(self, tmp_path, rng):
        names = ("label", *(f"pixel{k}" for k in range(64)))
        path = write(tmp_path, self.text(self.rows(rng, 64) / 2, names))
        with pytest.warns(DataWarning, match="named pixels, and are not"):
            assert isinstance(load_dataset(path), Table)

    def test_a_cell_that_is_no_pixel_among_many_rows_of_images_is_an_error(self, tmp_path, rng):
        table = self.rows(rng, 64)
        table = np.vstack([table, table])
        table[110, 5] = 256
        with pytest.raises(DataError, match=r"line 111, column 6.*'256' is out of range"):
            load_dataset(write(tmp_path, self.text(table)))


def numbers_as_written(rng, n):
    """Rows of numbers in many notations, with words for labels."""
    forms = ("{:.17g}", "{:.3f}", "{:e}", "{:.0f}", "{:+.2f}", " {:.2f} ", "{:.1E}")
    values = rng.normal(size=(n, 4)) * 10.0 ** rng.integers(-300, 300, (n, 4))
    values[:, 1] = np.round(values[:, 1] % 7, 3)
    rows = [[forms[rng.integers(len(forms))].format(value) for value in row] for row in values.tolist()]
    return [",".join([*row, (" é b", "a", "", "x y ")[k % 4] if n % 2 else "ab"[k % 2]]) for k, row in enumerate(rows)]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines,
        lambda lines: [*lines[:7], *lines[8:], ""],
        lambda lines: [*lines[:9], "1,2,3,4", *lines[9:]],
        lambda lines: [*lines[:9], "1,2,3,4,a,6", *lines[9:]],
        lambda lines: [*lines[:9], "1,,3,4,a", *lines[9:]],
        lambda lines: [*lines[:9], "1,inf,nan,4,a", "1,1_0,2,3,a", *lines[9:]],
        lambda lines: [*lines[:9], "1,true,0x10,4,a", *lines[9:]],
        lambda lines: [*lines[:9], '1,"2",3,4,"a"', "# a comment", "   ", *lines[9:]],
        lambda lines: [line + "," for line in lines],
    ],
)
@pytest.mark.parametrize("n", [40, 41])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_large_blocks_are_read_by_pyarrow_as_small_ones_are_by_numpy(tmp_path, rng, monkeypatch, change, n, separator):
    pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install "gpusvm[test]"')
    lines = ["a,b,c,d,label", *change(numbers_as_written(rng, n))]
    path = write(tmp_path, "\n".join(lines).replace(",", separator))

    def found():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            try:
                table = delimited.read(path, TableOptions())
            except DataError as error:
                return str(error)
        return table.X.tobytes(), table.labels.tolist(), table.columns

    expected = found()
    monkeypatch.setattr("gpusvm.data.text.BLOCK_CHARACTERS", 300)
    monkeypatch.setattr("gpusvm.data.delimited.BLOCK_CHARACTERS", 0)
    assert found() == expected


@pytest.mark.parametrize("decimal", [".", ","])
def test_pyarrow_reads_what_it_can(tmp_path, rng, monkeypatch, decimal):
    pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install "gpusvm[test]"')
    X = rng.normal(size=(50, 3))
    text = "a;b;c;label\n" + "\n".join(";".join([*map(repr, row), "ab"[k % 2]]) for k, row in enumerate(X.tolist()))
    path = write(tmp_path, text.replace(".", decimal))
    monkeypatch.setattr("gpusvm.data.delimited.BLOCK_CHARACTERS", 0)
    for way in ("_parse_at_once", "_parse_by_cell"):
        monkeypatch.setattr(delimited._Parser, way, lambda *_: pytest.fail("not read by pyarrow"))
    table = delimited.read(path, TableOptions())
    np.testing.assert_array_equal(table.X, X)
    assert table.labels.tolist() == ["ab"[k % 2] for k in range(50)]
