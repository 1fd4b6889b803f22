//! Arrays within the elements of arrays (`for_each = "frames[*].detections"`).

use super::support::*;
use crate::decode::Decoder;
use crate::encode::types::Type;
use crate::poison::PoisonKind;

fn both(json: &str) -> [Vec<u8>; 2] {
    [json.as_bytes().to_vec(), msgpack(json)]
}

fn bigints(names: &[&str]) -> crate::postgres::introspect::Table {
    table(names.iter().map(|name| column(name, Type::Int8)).collect())
}

/// A table of the innermost elements, with further settings of it.
fn detections(for_each: &str, settings: &str) -> Decoder {
    let toml = format!(
        "[[table]]\nname = 't'\nfor_each = '{for_each}'\n{settings}\n[table.columns]\nid = 'id'\nframe = \
         '^id'\ncamera = '^^camera.id'\nplace = '$element'\n"
    );
    try_decoder(&toml, &[bigints(&["id", "frame", "camera", "place"])]).unwrap()
}

const MESSAGE: &str = r#"{"camera": {"id": 7}, "frames": [
    {"id": 1, "detections": [{"id": 10}, {"id": 11}]},
    {"id": 2, "detections": []}, {"id": 3}, {"id": 4, "detections": null},
    {"detections": [{"id": 12}]}
]}"#;

#[test]
fn each_innermost_element_is_a_row_and_sees_what_is_around_it() {
    for payload in both(MESSAGE) {
        for for_each in ["frames[*].detections", "frames[*].detections[*]"] {
            let mut decoder = detections(for_each, "");
            let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
            let row =
                |id, frame: Option<i64>, place| vec![int8(id), frame.and_then(int8), int8(7), int8(place)];
            assert_eq!(rows, [[row(10, Some(1), 0), row(11, Some(1), 1), row(12, None, 2)]], "{for_each}");
            assert_eq!(rows_of(&mut decoder, &message(&payload)).unwrap(), rows, "as the first time");
        }
    }
}

#[test]
fn arrays_may_lie_three_deep_begin_at_the_message_and_be_elements_themselves() {
    let decoder = |for_each: &str, sources: &str, names: &[&str]| {
        let toml = format!("[[table]]\nname = 't'\nfor_each = '{for_each}'\n[table.columns]\n{sources}");
        try_decoder(&toml, &[bigints(names)]).unwrap()
    };
    let deep = r#"{"x": 1, "a": [{"x": 2, "b": [{"x": 3, "c": [{"x": 4}, {"x": 5}]}]}]}"#;
    let sources = "x = 'x'\ny = '^x'\nz = '^^x'\nm = '^^^x'";
    for payload in both(deep) {
        let mut decoder = decoder("a[*].b[*].c", sources, &["x", "y", "z", "m"]);
        let row = |x| vec![int8(x), int8(3), int8(2), int8(1)];
        assert_eq!(rows_of(&mut decoder, &message(&payload)).unwrap(), [[row(4), row(5)]]);
    }
    for payload in both(r#"[{"x": 1, "b": [{"x": 2}]}, {"x": 3, "b": [{"x": 4}]}]"#) {
        let mut decoder = decoder("$[*].b", "x = 'x'\ny = '^x'", &["x", "y"]);
        let row = |x, y| vec![int8(x), int8(y)];
        assert_eq!(rows_of(&mut decoder, &message(&payload)).unwrap(), [[row(2, 1), row(4, 3)]]);
    }
    for payload in both(r#"{"rows": [[[1, 2], [3, 4]], [[5, 6]]]}"#) {
        let mut decoder = decoder("rows[*][*]", "x = '[0]'\ny = '[1]'", &["x", "y"]);
        let row = |x, y| vec![int8(x), int8(y)];
        assert_eq!(rows_of(&mut decoder, &message(&payload)).unwrap(), [[row(1, 2), row(3, 4), row(5, 6)]]);
    }
}

#[test]
fn an_innermost_element_that_cannot_be_stored_is_refused_alone_and_what_it_lies_in_as_a_whole() {
    let element = "bad_element = 'element'";
    for payload in
        both(r#"{"frames": [{"detections": [{"id": 1}, {"id": "x"}]}, {"detections": [{"id": 2}]}]}"#)
    {
        let poison = poison(&mut detections("frames[*].detections", ""), &payload);
        assert_eq!((poison.kind, poison.column.as_deref()), (PoisonKind::Type, Some("id")));
        let mut rows = crate::batch::Rows::new(1);
        let mut decoder = detections("frames[*].detections", element);
        decoder.decode(&message(&payload), 0, &mut rows).unwrap();
        assert_eq!(rows.tables[0].rows.iter().map(|row| row.element).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(rows.refused.iter().map(|refused| refused.element).collect::<Vec<_>>(), [Some(1)]);
    }
    let toml = "[[table]]\nname = 't'\nfor_each = 'rows[*][*]'\n[table.columns]\nx = '[0]'";
    for payload in both(r#"{"rows": [[{"x": 1}]]}"#) {
        let poison = poison(&mut try_decoder(toml, &[bigints(&["x"])]).unwrap(), &payload);
        assert!(poison.message.contains("reads inside `rows[*][]`, which is a map"), "{poison:?}");
    }
    for (json, reason) in [
        (r#"{"frames": [1]}"#, "in `frames` there is 1"),
        (r#"{"frames": [{"detections": {}}]}"#, "in `frames[*].detections` there is a map"),
        (r#"{"frames": [{"detections": [2]}]}"#, "in `frames[*].detections` there is 2"),
        (r#"{"frames": {}}"#, "in `frames` there is a map"),
    ] {
        for payload in both(json) {
            let poison = poison(&mut detections("frames[*].detections", ""), &payload);
            assert_eq!(poison.kind, PoisonKind::Type);
            assert!(poison.message.contains(reason), "{json}: {}", poison.message);
        }
    }
}

#[test]
fn what_others_make_rows_of_is_no_rest_and_no_field_that_nobody_takes() {
    let toml = "
        [[table]]\nname = 't'\nfor_each = 'frames'\n[table.columns]\nid = 'id'\nrest = '$rest'
        [[table]]\nname = 'u'\nfor_each = 'frames[*].detections'\n[table.columns]\nid = 'id'\nrest = '$rest'";
    let each = || table(vec![column("id", Type::Int8), column("rest", Type::Jsonb)]);
    let mut decoder = try_decoder(toml, &[each(), each()]).unwrap();
    let json = r#"{"frames": [{"id": 1, "x": 2, "detections": [{"id": 3, "y": 4}]}]}"#;
    for payload in both(json) {
        let rows = rows_of(&mut decoder, &message(&payload)).unwrap();
        let row = |id, rest| vec![vec![int8(id), jsonb(rest)]];
        assert_eq!(rows, [row(1, r#"{"x":2}"#), row(3, r#"{"y":4}"#)]);
    }
    assert_eq!(decoder.tell().fields, []);

    let mut alone = detections("frames[*].detections", "");
    for payload in both(r#"{"a": 1, "frames": [{"b": 2, "detections": [{"c": 3}, {"c": 4}]}]}"#) {
        rows_of(&mut alone, &message(&payload)).unwrap();
        let mut untaken = alone.tell().fields;
        untaken.sort();
        let field = |name: &str, times| (name.to_owned(), times);
        assert_eq!(untaken, [field("a", 1), field("frames[].b", 1), field("frames[].detections[].c", 2)]);
    }
    for payload in both(r#"{"frames": [{"id": 1}]}"#) {
        rows_of(&mut alone, &message(&payload)).unwrap();
        assert_eq!(alone.tell().tables[0].found, 0, "no frame had detections");
    }
}

#[test]
fn too_many_carets_are_refused() {
    let toml = "[[table]]\nname = 't'\nfor_each = 'a[*].b'\n[table.columns]\nx = '^^^x'";
    let problem = try_decoder(toml, &[bigints(&["x"])]).unwrap_err().problem;
    assert!(problem.contains("remove one"), "{problem}");
    let toml = "[[table]]\nname = 't'\n[table.columns]\nx = '^x'";
    assert!(try_decoder(toml, &[bigints(&["x"])]).is_err());
}
