use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::*;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// Names, relative to the folder, and contents.
fn texts(folder: &TempDir) -> Vec<(String, String)> {
    let prefix = format!("{}/", folder.path().display());
    read(&[folder.path().to_owned()])
        .unwrap()
        .into_iter()
        .map(|text| {
            let name = text.file.strip_prefix(&prefix).unwrap().to_owned();
            (name, String::from_utf8_lossy(&text.bytes).into_owned())
        })
        .collect()
}

fn names(folder: &TempDir) -> Vec<String> {
    texts(folder).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_folder_gives_its_policy_files_sorted_and_with_sub_folders() {
    let folder = folder(&[
        ("b.yaml", "b"),
        ("a.yml", "a"),
        ("sub/c.json", "c"),
        ("sub/deeper/d.cedar", "d"),
        ("e.YAML", "e"),
        ("readme.md", "not read"),
        ("x.cedarschema", "not read"),
        (".hidden.yaml", "not read"),
        (".git/y.yaml", "not read"),
    ]);
    assert_eq!(
        names(&folder),
        [
            "a.yml",
            "b.yaml",
            "e.YAML",
            "sub/c.json",
            "sub/deeper/d.cedar"
        ]
    );
}

#[test]
fn a_file_given_by_name_is_read_whatever_it_is_called() {
    let folder = folder(&[("policy.txt", "p"), (".hidden", "h")]);
    let paths = ["policy.txt", ".hidden"].map(|name| folder.path().join(name));
    let texts = read(&paths).unwrap();
    assert_eq!(texts.len(), 2);
    assert_eq!(texts[0].file.as_ref(), paths[0].to_str().unwrap());
    assert_eq!(texts[1].bytes.as_ref(), b"h");
}

#[test]
fn the_order_of_the_paths_is_kept_and_no_file_is_read_twice() {
    let folder = folder(&[("a.yaml", "a"), ("b.yaml", "b")]);
    let paths = [folder.path().join("b.yaml"), folder.path().to_owned()];
    let texts = read(&paths).unwrap();
    let contents: Vec<_> = texts.iter().map(|text| text.bytes.as_ref()).collect();
    assert_eq!(contents, [b"b", b"a"]);
}

#[test]
fn a_mounted_config_map_is_read_once_through_its_links() {
    let folder = folder(&[("..2026_01/a.yaml", "one"), ("..2026_01/b.cedar", "two")]);
    symlink("..2026_01", folder.path().join("..data")).unwrap();
    symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
    symlink("..data/b.cedar", folder.path().join("b.cedar")).unwrap();
    let expected =
        [("a.yaml", "one"), ("b.cedar", "two")].map(|(n, c)| (n.to_owned(), c.to_owned()));
    assert_eq!(texts(&folder), expected);
}

#[test]
fn a_missing_path_is_named() {
    let folder = folder(&[("a.yaml", "a")]);
    let missing = folder.path().join("nope");
    let error = read(&[folder.path().to_owned(), missing.clone()]).unwrap_err();
    assert!(matches!(&error, ReadError::Missing(path) if *path == missing));
    assert_eq!(
        error.to_string(),
        format!("`{}` does not exist", missing.display())
    );
}

#[test]
fn a_link_that_leads_nowhere_is_an_error() {
    let folder = folder(&[("a.yaml", "a")]);
    symlink("gone.yaml", folder.path().join("b.yaml")).unwrap();
    let error = read(&[folder.path().to_owned()]).unwrap_err();
    assert!(
        error.to_string().ends_with("b.yaml` does not exist"),
        "{error}"
    );
}

#[test]
fn a_loop_of_links_is_an_error_and_a_link_aside_is_not() {
    let looped = folder(&[("sub/a.yaml", "a")]);
    symlink("..", looped.path().join("sub/up")).unwrap();
    let error = read(&[looped.path().to_owned()]).unwrap_err();
    assert!(matches!(error, ReadError::Loop(_)), "{error}");

    let itself = folder(&[]);
    symlink("self.yaml", itself.path().join("self.yaml")).unwrap();
    let error = read(&[itself.path().to_owned()]).unwrap_err();
    assert!(matches!(error, ReadError::Unreadable { .. }), "{error}");

    let aside = folder(&[("real/a.yaml", "a")]);
    symlink("real", aside.path().join("alias")).unwrap();
    assert_eq!(names(&aside), ["alias/a.yaml"]);
}

#[test]
fn too_many_folders_inside_each_other_are_an_error() {
    let deep = "d/".repeat(MAX_DEPTH);
    let folder = folder(&[(&format!("{deep}a.yaml"), "a")]);
    let error = read(&[folder.path().to_owned()]).unwrap_err();
    assert!(matches!(error, ReadError::TooDeep(_)), "{error}");
}

#[test]
fn a_socket_that_is_called_like_a_policy_is_an_error() {
    let folder = folder(&[]);
    let _socket = UnixListener::bind(folder.path().join("a.yaml")).unwrap();
    let error = read(&[folder.path().to_owned()]).unwrap_err();
    assert!(matches!(error, ReadError::NotAFile(_)), "{error}");
}

#[test]
fn an_unreadable_file_is_an_error() {
    let folder = folder(&[("a.yaml", "a")]);
    let path = folder.path().join("a.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&path).is_ok() {
        // The superuser reads everything; a folder in the file's place fails for everybody.
        let error = Entry::File {
            path: folder.path().to_owned(),
            metadata: fs::metadata(folder.path()).unwrap(),
        };
        let error = error.read(&mut 0).unwrap_err();
        assert!(matches!(error, ReadError::Unreadable { .. }), "{error}");
        return;
    }
    let error = read(&[folder.path().to_owned()]).unwrap_err();
    assert!(matches!(error, ReadError::Unreadable { .. }), "{error}");
}

#[test]
fn a_file_beyond_the_limit_is_refused_without_reading_it_all() {
    let folder = folder(&[]);
    let path = folder.path().join("a.yaml");
    // Sparse: ten gigabytes that take no room.
    File::create(&path).unwrap().set_len(10 << 30).unwrap();
    let error = read(std::slice::from_ref(&path)).unwrap_err();
    assert!(matches!(error, ReadError::TooLarge { .. }), "{error}");
}

#[test]
fn bytes_are_passed_on_as_they_are() {
    let folder = folder(&[]);
    let path = folder.path().join("a.yaml");
    fs::write(&path, b"\xff\x00\r\n").unwrap();
    assert_eq!(read(&[path]).unwrap()[0].bytes.as_ref(), b"\xff\x00\r\n");
}
