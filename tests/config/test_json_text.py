"""Text and files that hold no configuration, and the one line that each gets."""

import json
import re

import hypothesis.strategies as st
import pytest
from configurations import AUTOENCODER, DOCUMENTS, autoencoder, lines, parse
from hypothesis import given, settings

from cae.config.json_text import MAX_FILE_BYTES
from cae.config.load import load_config
from cae.config.schema import CONFIGS
from cae.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "my.json: must be a JSON object, got an empty file"),
        ("[1]", "my.json: must be an object, {...}, got [1]."),
        ('"x"', 'my.json: must be an object, {...}, got "x".'),
        ('{"model_info": 3}', "my.json: model_info: must be an object, {...}, got 3."),
        (
            '{"model_info": {}, "epochs": 1}',
            'no keys besides model_info, got "epochs". Move them into model_info.',
        ),
        ("[" * 100_000, "my.json: must be nested at most 20 deep"),
        ('{"a":' * 30 + "1" + "}" * 30, "my.json: must be nested at most 20 deep"),
        (r'{"\ud800": 1}', r"must be valid Unicode, got \ud800, which is half a character"),
    ],
)
def test_text_that_holds_no_configuration(text, message):
    (line,) = lines(text)
    assert message in line


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ('{"a": [1,]}', "line 1, column ", "Remove the comma before the closing bracket."),
        ('{\n "a": 1,\n}', "line ", "Remove the comma before the closing bracket."),
        ("{'a': 1}", "line 1, column 2", "Use double quotes."),
        ('{"a": 1} {"b": 2}', "line 1, column 10", "Remove what follows the object."),
        ('{\n  "a": 1 // one\n}', "line 2, column 10", "Remove the comment: JSON has none."),
        ("# hi\n{}", "line 1, column 1", "Remove the comment: JSON has none."),
        ('{"a": None}', "line 1, column 7", "Write true, false or null."),
        ('{"a": [1', "line 1, column 9", "The file ends too early: close all its brackets."),
        ('{"a" 1}', "line 1, column 6", "Look for a missing comma, quote or bracket here."),
        (r'{"a": "C:\models"}', "line 1, column 10", 'Write backslashes twice, or "/" in paths.'),
    ],
)
def test_syntax_errors_come_with_line_column_and_remedy(text, place, remedy):
    (line,) = lines(text)
    assert line.startswith(f"my.json: {place}")
    assert line.endswith(remedy)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_numbers_that_are_not_finite(number):
    text = json.dumps(AUTOENCODER | {"l2": "?", "epochs": "?"}).replace('"?"', number)
    first, second = lines(text)
    assert re.match(r"my.json: epochs: must be a whole number .*, got (NaN|-?Infinity)", first)
    assert re.match(r"my.json: l2: must be a number from 0 to 1, got (NaN|-?Infinity)", second)


def test_keys_written_twice_are_all_named_beside_other_problems():
    text = json.dumps(AUTOENCODER)[:-1] + (
        ', "seed": 1, "seed": 1, "noise": 2, "augmentation": {"zoom": 0, "zoom": 0, "zoom": 0}}'
    )
    assert [line.partition(", got")[0] for line in lines(text)] == [
        "my.json: seed: must occur once in its object",
        "my.json: augmentation.zoom: must occur once in its object",
        "my.json: noise: must be a number from 0 to 1",
    ]
    (line,) = lines(json.dumps({"model_info": AUTOENCODER})[:-2] + ', "seed": 1, "seed": 1}}')
    assert line.startswith("my.json: model_info.seed: must occur once in its object")


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda children: (
            st.lists(children, max_size=4)
            | st.dictionaries(
                st.sampled_from([*CONFIGS["autoencoder"].model_fields, "<conv>", "model_info"])
                | st.text(st.characters(), max_size=3),
                children,
                max_size=4,
            )
        ),
    ),
    st.sampled_from([*CONFIGS]),
)
def test_any_json_is_a_configuration_or_a_clear_error(document, kind):
    base = DOCUMENTS[kind]
    for candidate in (document, base | (document if isinstance(document, dict) else {})):
        try:
            parse(candidate, kind)
        except ConfigurationError as error:
            assert error.lines
            assert all(re.match(r"my\.json: .*(must|is) .*\S$", line) for line in error.lines)
            "".join(error.lines).encode()


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
def test_files_of_any_extension_with_or_without_byte_order_mark(tmp_path, prefix):
    path = tmp_path / "small.txt"
    path.write_bytes(prefix + json.dumps(AUTOENCODER).encode())
    assert load_config(path, "autoencoder") == autoencoder()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.json", json.dumps(AUTOENCODER | {"epochs": 0}).encode(), "epochs: must be"),
        ("my.json", b'{"a": "\xe9"}', "got byte 0xe9 at offset 7. Save it as UTF-8."),
        ("my.json", b" " * (MAX_FILE_BYTES + 1), f"must be at most {MAX_FILE_BYTES} bytes"),
        ("m.json", None, "Did you mean {folder}/my.json?"),
        ("nowhere/my.json", None, "there is no folder {folder}/nowhere."),
        ("", None, "must be a configuration file, got a folder"),
        ("\0.json", None, "must be the name of a file"),
    ],
)
def test_files_that_hold_no_configuration(tmp_path, name, content, message):
    (tmp_path / "my.json").write_bytes(content or b"")
    with pytest.raises(ConfigurationError) as caught:
        load_config(tmp_path / name, "autoencoder")
    (line,) = caught.value.lines
    assert message.format(folder=tmp_path) in line
