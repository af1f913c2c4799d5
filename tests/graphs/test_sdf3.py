"""Files as SDF3 writes them, typed for these tests."""

from fractions import Fraction
from pathlib import Path

import pytest

from dataflow.analysis import repetition_vector
from dataflow.errors import MisuseError
from dataflow.graph import Graph
from dataflow.throughput import throughput
from graphs.located_yaml import FileErrors
from graphs.sdf3 import read_sdf3

FILE = """\
<?xml version="1.0" encoding="UTF-8"?>
<sdf3 type="sdf" version="1.0">
  <applicationGraph name="pair">
    <sdf name="pair" type="G">
      <actor name="a" type="A">
        <port name="out.0" type="out" rate="2"/>
        <port name="again" type="out" rate="1"/>
        <port name="before" type="in" rate="1"/>
      </actor>
      <actor name="b" type="B">
        <port name="in" type="in" rate="3"/>
      </actor>
      <channel name="c" srcActor="a" srcPort="out.0" dstActor="b" dstPort="in"
        initialTokens="1"/>
      <channel name="d" srcActor="a" srcPort="again" dstActor="a" dstPort="before"
        initialTokens="1"/>
    </sdf>
    <sdfProperties>
      <actorProperties actor="a">
        <processor type="arm" default="true"><executionTime time="7"/></processor>
        <processor type="dsp" default="true"><executionTime time="5"/></processor>
      </actorProperties>
      <actorProperties actor="b">
        <processor type="arm"><executionTime time="2"/><memory/></processor>
      </actorProperties>
    </sdfProperties>
  </applicationGraph>
</sdf3>
"""


def read(tmp_path: Path, old: str = "", new: str = "") -> Graph:
    assert old in FILE
    path = tmp_path / "pair.xml"
    path.write_text(FILE.replace(old, new, 1) if old else FILE)
    return read_sdf3(path)


def test_rates_delays_and_times_are_read(tmp_path: Path) -> None:
    graph = read(tmp_path)
    assert graph.name == "pair"
    assert repetition_vector(graph) == {"a": 3, "b": 2}
    assert [(str(f), f.delay) for f in graph.fifos] == [
        ("a.out_0 -> b.in", 1),
        ("a.again -> a.before", 1),
    ]


def test_of_several_default_processors_the_last_counts(tmp_path: Path) -> None:
    graph = read(tmp_path)
    assert {n: a.time for n, a in graph.actors.items()} == {"a": 5, "b": 2}
    assert throughput(graph) == Fraction(1, 15)


def test_actor_without_a_time_has_none(tmp_path: Path) -> None:
    graph = read(tmp_path, '<executionTime time="2"/>')
    assert graph.actors["b"].time is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('rate="3"', 'rate="1,2"', "11:9: <port> with rate '1,2'"),
        ('rate="3"', 'rate="-3"', "<port> with rate '-3'"),
        ('"b" dstPort="in"', '"bb" dstPort="in"', "dstActor 'bb', which is not"),
        ('dstPort="in"', 'dstPort="inn"', "actor 'b' does not have (did you"),
        ('type="in" rate="3"', 'type="on" rate="3"', "of type 'on'; say in or out"),
        ('time="5"', 'time="soon"', "execution time 'soon' is not a number"),
        ('actor="b"', 'actor="bee"', "of 'bee', which is not an actor"),
        ('<actor name="b"', '<actor name="a"', "actor 'a' is there twice"),
        ("</sdf3>", "", "not valid XML: no element found"),
        ('encoding="UTF-8"', 'encoding="none"', "not valid XML: unknown encoding"),
        ("<sdf name", "<csdf name", "not valid XML: mismatched tag"),
        (
            '<sdf3 type="sdf" version="1.0">',
            '<!DOCTYPE s [<!ENTITY a "b">]><sdf3>',
            "declares an entity",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(FileErrors) as caught:
        read(tmp_path, old, new)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'pair.xml'}:")


def test_other_graphs_of_sdf3_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.xml"
    path.write_text("<sdf3><applicationGraph><csdf/></applicationGraph></sdf3>")
    with pytest.raises(FileErrors, match="but a <csdf>"):
        read_sdf3(path)


def test_file_that_is_not_there_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="cannot be read"):
        read_sdf3(tmp_path / "none.xml")
