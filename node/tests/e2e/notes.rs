//! The first program that people read is run as it is.

#[allow(dead_code, reason = "its `main` is for people")]
#[path = "../../examples/notes.rs"]
mod example;

use example::Plan;

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_in_one_program_share_a_plan() {
    let dir = tempfile::tempdir().unwrap();
    let read = example::share_a_plan(dir.path()).await.unwrap();
    assert_eq!(read, Plan { title: "sail".to_owned(), done: true });
}
