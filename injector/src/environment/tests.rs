use super::*;
use proptest::prelude::*;
use std::os::unix::ffi::OsStringExt as _;

fn secret((variable, value): &(String, String)) -> Assigned {
    let value = SecretValue::new(value.clone().into_bytes()).expect("a good value");
    Assigned { variable: variable.clone(), value }
}

fn strings(environment: Environment) -> Vec<Vec<u8>> {
    let sizes: Vec<usize> = environment.sizes().map(|(_, bytes)| bytes).collect();
    let strings = environment.into_strings().expect("no NUL");
    assert_eq!(sizes, strings.iter().map(|string| string.as_bytes_with_nul().len()).collect::<Vec<_>>());
    strings.iter().map(|string| string.to_bytes().to_vec()).collect()
}

fn built(inherited: &[(&str, &str)], secrets: &[(&str, &str)], keep_existing: bool) -> Vec<String> {
    let inherited = Inherited::new(inherited.iter().map(|(k, v)| (k.into(), v.into())));
    let secrets = secrets.iter().map(|(k, v)| secret(&((*k).to_owned(), (*v).to_owned()))).collect();
    let strings = strings(Environment::new(inherited, secrets, keep_existing));
    strings.into_iter().map(|s| String::from_utf8(s).expect("text")).collect()
}

#[test]
fn a_secret_replaces_an_inherited_variable() {
    assert_eq!(built(&[("A", "old"), ("B", "b")], &[("A", "new")], false), ["A=new", "B=b"]);
    assert_eq!(built(&[("A", "old"), ("B", "b")], &[("A", "new"), ("C", "c")], true), ["A=old", "B=b", "C=c"]);
    assert_eq!(built(&[("A", "")], &[("A", "new")], true), ["A="], "set and empty is set");
}

#[test]
fn own_variables_are_removed_always() {
    let own = [("COFFER_TOKEN", "t"), ("COFFER_", "x"), ("COFFER_ANYTHING", "y"), ("COFFERS", "mine")];
    for keep_existing in [false, true] {
        assert_eq!(built(&own, &[], keep_existing), ["COFFERS=mine"]);
    }
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let odd = [(b"N\xffAME".to_vec(), b"\xc3\x28\n=".to_vec()), (b"=C:".to_vec(), b"C:\\".to_vec())];
    let inherited = Inherited::new(odd.map(|(k, v)| (OsString::from_vec(k), OsString::from_vec(v))));
    let expected = [b"=C:=C:\\".to_vec(), b"N\xffAME=\xc3\x28\n=".to_vec()];
    assert_eq!(strings(Environment::new(inherited, Vec::new(), false)), expected);
}

/// The rules once more, in the words of a list: what execve gets is searched from the front.
fn model(inherited: &[(Vec<u8>, Vec<u8>)], secrets: &[(String, String)], keep: bool, name: &[u8]) -> Option<Vec<u8>> {
    let kept = inherited.iter().find(|(n, _)| n == name && !n.starts_with(b"COFFER_")).map(|(_, v)| v.clone());
    let secret = secrets.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, v)| v.clone().into_bytes());
    if keep { kept.or(secret) } else { secret.or(kept) }
}

proptest! {
    #[test]
    fn the_rules_hold_for_any_environment(
        inherited in prop::collection::vec(("COFFER_[A-C]?|[A-C=]?[A-C]", prop::collection::vec(1u8.., 0..6)), 0..9),
        secrets in prop::collection::btree_map("[A-C]{1,2}", "[^\\x00]{1,6}", 0..9),
        keep in any::<bool>(),
    ) {
        let inherited: Vec<_> = inherited.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        let secrets: Vec<_> = secrets.into_iter().collect();
        let os = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        let built = strings(Environment::new(
            Inherited::new(inherited.iter().map(|(name, value)| (os(name), os(value)))),
            secrets.iter().map(secret).collect(),
            keep,
        ));

        let names = inherited.iter().map(|(n, _)| n.clone()).chain(secrets.iter().map(|(n, _)| n.clone().into_bytes()));
        let names: std::collections::BTreeSet<_> = names.collect();
        let expected: Vec<_> = names
            .iter()
            .filter_map(|name| Some([&name[..], b"=", &model(&inherited, &secrets, keep, name)?].concat()))
            .collect();
        prop_assert_eq!(built, expected);
    }
}
