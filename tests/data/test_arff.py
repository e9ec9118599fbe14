"""ARFF, Weka's format."""

import pytest

from gpusvm.data import Table, load_dataset
from gpusvm.errors import DataError

HEADER = "% a comment\n@RELATION iris\n@attribute 'sepal length' NUMERIC\n@attribute width real\n"
IRIS = (
    HEADER + "@attribute kind {setosa, 'virginica'}\n@data\n5.1,3.5,setosa\n% another\n4.9,3,'virginica'\n5,3,setosa\n"
)


def write(folder, text, name="t.arff"):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("name", ["iris.arff", "iris.txt"])
@pytest.mark.filterwarnings("ignore::gpusvm.errors.DataWarning")
def test_the_last_nominal_attribute_is_the_class(tmp_path, name):
    table = load_dataset(write(tmp_path, IRIS + "6,1,setosa\n", name))
    assert isinstance(table, Table) and table.columns == ("sepal length", "width") and table.label_name == "kind"
    assert table.X.tolist() == [[5.1, 3.5], [4.9, 3.0], [5.0, 3.0], [6.0, 1.0]]
    assert table.labels.tolist() == ["setosa", "virginica", "setosa", "setosa"]


def test_attributes_of_text_can_be_left_out(tmp_path):
    text = HEADER + "@attribute note string\n@attribute class {0,1}\n@data\n1,2,'a, b',0\n3,4,'',1\n"
    table = load_dataset(write(tmp_path, text), drop=("note",))
    assert table.X.tolist() == [[1, 2], [3, 4]] and table.labels.tolist() == [0, 1]


def test_nominal_numbers_are_numbers(tmp_path):
    table = load_dataset(write(tmp_path, HEADER + "@attribute class {0,1}\n@data\n1,2,1\n3,4,0\n"))
    assert table.labels.tolist() == [1, 0]
    table = load_dataset(
        write(tmp_path, HEADER + "@attribute n {0,1}\n@attribute class {a,b}\n@data\n1,2,1,a\n3,4,0,b\n")
    )
    assert table.X.tolist() == [[1, 2, 1], [3, 4, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + "@attribute k {a,b}\n@attribute class {0,1}\n@data\n1,2,a,0\n",
            r"line 8, column 3 \(k\): 'a' is not a",
        ),
        (IRIS + "1,x,setosa\n", r"line 11, column 2 \(width\): 'x' is not a number"),
        (IRIS + "1,2,versicolor\n", "row 4 has kind 'versicolor', which is none of the values"),
        (IRIS + "1,?,setosa\n", r"line 11, column 2 \(width\): the value is missing, as in 1 of 4 rows"),
        (IRIS + "1,2,?\n", r"1 of 4 labels are missing, the first \('\?'\) in row 4"),
        (IRIS + "1,2\n", "line 11 has 2 columns where the first has 3"),
        (IRIS + "1,2,setosa,4\n", "line 11 has 4 columns where the first has 3"),
        (HEADER + "@attribute class {0,1}\n@data\n{0 1, 2 1}\n", "line 7 is in ARFF's sparse form"),
        (
            HEADER + "@attribute s string\n@attribute class {0,1}\n@data\n1,2,x y,0\n",
            r"column 3 \(s\): 'x y' is not a num",
        ),
        (HEADER + "@attribute r relational\n", "line 5 .* no attribute of a known type"),
        (HEADER + "@attribute n\n", "line 5 .* no attribute of a known type"),
        (HEADER + "1,2\n", r"line 5 \('1,2'\) is no @attribute"),
        (HEADER + "@data\n", "no rows"),
        (HEADER, "has no @data"),
    ],
)
@pytest.mark.filterwarnings("ignore::gpusvm.errors.DataWarning")
def test_what_is_wrong_is_said(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
