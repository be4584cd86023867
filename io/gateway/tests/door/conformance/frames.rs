//! Groups 1 to 7: framing, pings and pongs, reserved bits, opcodes, fragments, UTF-8, closing.

use super::{
    BINARY, CLOSE, Case, ENDS, End, GOES_ON, PING, PONG, TEXT, TEXT_BEGINS, close, ends, fails, fine, finish, run,
};
use crate::client::{Client, echo_door, frame};

// Proves: GW-35, GW-96
#[tokio::test]
async fn group_1_framing() {
    let sizes = [0usize, 125, 126, 127, 128, 65_535, 65_536, 65_536];
    let numbers = [
        ["1.1.1", "1.1.2", "1.1.3", "1.1.4", "1.1.5", "1.1.6", "1.1.7", "1.1.8"],
        ["1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.2.5", "1.2.6", "1.2.7", "1.2.8"],
    ];
    let mut cases = Vec::new();
    for (first, numbers) in [TEXT, BINARY].into_iter().zip(numbers) {
        for (number, size) in numbers.into_iter().zip(sizes) {
            let payload = vec![if first == TEXT { b'*' } else { 0xfe }; size];
            let whole = frame(first, &payload);
            // The last of each is chopped into pieces of 997 octets.
            let chop = if number.ends_with(".8") { 997 } else { usize::MAX };
            let sent: Vec<Vec<u8>> = whole.chunks(chop).map(<[u8]>::to_vec).collect();
            cases.push(fine(number, &sent, &[(first, &payload)]));
        }
    }
    run(&cases).await;
}

// Proves: GW-35, GW-96
#[tokio::test]
async fn group_2_pings_and_pongs() {
    let ping = |payload: &[u8]| frame(PING, payload);
    let ten: Vec<Vec<u8>> = (0..10u8).map(|at| ping(&[b'p', at])).collect();
    let ten_back: Vec<Vec<u8>> = (0..10u8).map(|at| vec![b'p', at]).collect();
    let ten_back: Vec<(u8, &[u8])> = ten_back.iter().map(|payload| (PONG, payload.as_slice())).collect();
    let odd: &[u8] = &[0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
    run(&[
        fine("2.1", &[ping(b"")], &[(PONG, b"")]),
        fine("2.2", &[ping(b"Hello, world!")], &[(PONG, b"Hello, world!")]),
        fine("2.3", &[ping(odd)], &[(PONG, odd)]),
        fine("2.4", &[ping(&[0xfe; 125])], &[(PONG, &[0xfe; 125])]),
        fails("2.5", &[ping(&[0xfe; 126])], &[]),
        fine("2.6", &[ping(&[0xfe; 125])], &[(PONG, &[0xfe; 125])]),
        fine("2.7", &[frame(PONG, b"")], &[]),
        fine("2.8", &[frame(PONG, b"unsolicited pong payload")], &[]),
        fine("2.9", &[frame(PONG, b"unsolicited"), ping(b"ping payload")], &[(PONG, b"ping payload")]),
        fine("2.10", &ten, &ten_back),
        fine("2.11", &ten, &ten_back),
    ])
    .await;
}

// Proves: GW-35, GW-40, GW-96
#[tokio::test]
async fn group_3_reserved_bits() {
    let text = |reserved: u8| frame(TEXT | reserved << 4, b"Hello, world!");
    let back: &[(u8, &[u8])] = &[(TEXT, b"Hello, world!")];
    run(&[
        fails("3.1", &[text(4)], &[]),
        fails("3.2", &[text(0), text(2), frame(PING, b"")], back),
        fails("3.3", &[text(0), text(6), frame(PING, b"")], back),
        fails("3.4", &[text(0), text(1), frame(PING, b"")], back),
        fails("3.5", &[frame(BINARY | 5 << 4, &[0, 0xff, 0xfe])], &[]),
        fails("3.6", &[frame(PING | 3 << 4, b"Hello, world!")], &[]),
        fails("3.7", &[frame(CLOSE | 7 << 4, &[])], &[]),
    ])
    .await;
}

// Proves: GW-35, GW-96
#[tokio::test]
async fn group_4_opcodes() {
    let hello = frame(TEXT, b"Hello, world!");
    let back: &[(u8, &[u8])] = &[(TEXT, b"Hello, world!")];
    let mut cases = Vec::new();
    for (numbers, opcodes) in [
        (["4.1.1", "4.1.2", "4.1.3", "4.1.4", "4.1.5"], [3u8, 4, 5, 6, 7]),
        (["4.2.1", "4.2.2", "4.2.3", "4.2.4", "4.2.5"], [11, 12, 13, 14, 15]),
    ] {
        for (at, (number, opcode)) in numbers.into_iter().zip(opcodes).enumerate() {
            let payload: &[u8] = if matches!(at, 1 | 3 | 4) { b"reserved" } else { b"" };
            let odd = frame(0x80 | opcode, payload);
            cases.push(match at {
                0 | 1 => fails(number, &[odd], &[]),
                _ => fails(number, &[hello.clone(), odd, frame(PING, b"")], back),
            });
        }
    }
    run(&cases).await;
}

// Proves: GW-35, GW-96
#[tokio::test]
async fn group_5_fragments() {
    let (one, two) = (frame(TEXT_BEGINS, b"fragment1"), frame(ENDS, b"fragment2"));
    let whole: &[(u8, &[u8])] = &[(TEXT, b"fragment1fragment2")];
    let with_pong: &[(u8, &[u8])] = &[(PONG, b"ping payload"), (TEXT, b"fragment1fragment2")];
    let ping = frame(PING, b"ping payload");
    let in_two = [one.clone(), two.clone()];
    let with_ping = [one.clone(), ping, two.clone()];
    // A continuation of nothing, last or not, and a text behind it.
    let last = [frame(ENDS, b"non-continuation payload"), frame(TEXT, b"Hello, world!")];
    let more = [frame(GOES_ON, b"non-continuation payload"), frame(TEXT, b"Hello, world!")];
    run(&[
        fails("5.1", &[frame(0x09, b"fragment1"), two.clone()], &[]),
        fails("5.2", &[frame(0x0a, b"fragment1"), two.clone()], &[]),
        fine("5.3", &in_two, whole),
        fine("5.4", &in_two, whole),
        fine("5.5", &in_two, whole),
        fine("5.6", &with_ping, with_pong),
        fine("5.7", &with_ping, with_pong),
        fine("5.8", &with_ping, with_pong),
        fails("5.9", &last, &[]),
        fails("5.10", &last, &[]),
        fails("5.11", &last, &[]),
        fails("5.12", &more, &[]),
        fails("5.13", &more, &[]),
        fails("5.14", &more, &[]),
        fails("5.15", &[one.clone(), two.clone(), frame(GOES_ON, b"fragment3"), frame(TEXT, b"fragment4")], whole),
        fails(
            "5.16",
            &[frame(GOES_ON, b"fragment1"), frame(TEXT_BEGINS, b"fragment2"), frame(ENDS, b"fragment3")],
            &[],
        ),
        fails("5.17", &[frame(ENDS, b"fragment1"), frame(TEXT_BEGINS, b"fragment2"), frame(ENDS, b"fragment3")], &[]),
        fails("5.18", &[one, frame(TEXT, b"fragment2")], &[]),
    ])
    .await;
}

/// The second ping goes out only when the first was answered: the message in between is not needed for it.
// Proves: GW-35, GW-96
#[tokio::test]
async fn case_5_19_and_5_20_pings_are_answered_while_a_message_is_under_way() {
    let server = echo_door().await;
    for octets in [false, true] {
        let mut client = Client::open(server.address(), &[], b"").await.unwrap();
        let steps = [
            [frame(TEXT_BEGINS, b"1"), frame(GOES_ON, b"2"), frame(PING, b"first")].concat(),
            [frame(GOES_ON, b"3"), frame(GOES_ON, b"4"), frame(PING, b"second")].concat(),
        ];
        for (step, wanted) in steps.iter().zip(["first", "second"]) {
            for piece in step.chunks(if octets { 1 } else { usize::MAX }) {
                client.raw(piece).await;
            }
            assert_eq!(client.frame().await.unwrap(), (PONG, wanted.as_bytes().to_vec()));
        }
        client.raw(&frame(ENDS, b"5")).await;
        assert_eq!(client.frame().await.unwrap(), (TEXT, b"12345".to_vec()));
        finish(&mut client, End::Fine, "5.19").await;
    }
}

/// Valid and invalid sequences after Markus Kuhn's stress test, which the suite takes its cases 6.5 to 6.23 from.
fn utf8_cases() -> Vec<(&'static str, Vec<&'static [u8]>, bool)> {
    vec![
        (
            "6.5",
            vec![
                "κόσμε".as_bytes(),
                b"hello\x24world",
                b"hello\xc2\xa2world",
                b"hello\xe2\x82\xacworld",
                b"hello\xf0\xa4\xad\xa2world",
            ],
            true,
        ),
        (
            "6.6",
            vec![
                b"\xce",
                b"\xce\xba\xe1",
                b"\xce\xba\xe1\xbd",
                b"\xce\xba\xe1\xbd\xb9\xcf",
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce",
            ],
            false,
        ),
        (
            "6.6",
            vec![
                b"\xce\xba",
                b"\xce\xba\xe1\xbd\xb9",
                b"\xce\xba\xe1\xbd\xb9\xcf\x83",
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5",
            ],
            true,
        ),
        ("6.7", vec![b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"], true),
        ("6.8", vec![b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"], false),
        ("6.9", vec![b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"], true),
        ("6.10", vec![b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"], false),
        ("6.11", vec![b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf"], true),
        ("6.11", vec![b"\xf4\x90\x80\x80"], false),
        (
            "6.12",
            vec![b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", b"\x80\xbf\x80\xbf", b"\x80\x81\x82\x83\xbf"],
            false,
        ),
        (
            "6.13",
            vec![
                b"\xc0\x20\xc1\x20\xdf\x20",
                b"\xe0\x20\xef\x20",
                b"\xf0\x20\xf7\x20",
                b"\xf8\x20\xfb\x20",
                b"\xfc\x20\xfd\x20",
            ],
            false,
        ),
        (
            "6.14",
            vec![
                b"\xc0",
                b"\xe0\x80",
                b"\xf0\x80\x80",
                b"\xf8\x80\x80\x80",
                b"\xfc\x80\x80\x80\x80",
                b"\xdf",
                b"\xef\xbf",
                b"\xf7\xbf\xbf",
            ],
            false,
        ),
        ("6.15", vec![b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf"], false),
        ("6.16", vec![b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"], false),
        (
            "6.17",
            vec![
                b"\xc0\xaf",
                b"\xe0\x80\xaf",
                b"\xf0\x80\x80\xaf",
                b"\xf8\x80\x80\x80\xaf",
                b"\xfc\x80\x80\x80\x80\xaf",
            ],
            false,
        ),
        (
            "6.18",
            vec![
                b"\xc1\xbf",
                b"\xe0\x9f\xbf",
                b"\xf0\x8f\xbf\xbf",
                b"\xf8\x87\xbf\xbf\xbf",
                b"\xfc\x83\xbf\xbf\xbf\xbf",
            ],
            false,
        ),
        ("6.19", vec![b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80"], false),
        (
            "6.20",
            vec![
                b"\xed\xa0\x80",
                b"\xed\xad\xbf",
                b"\xed\xae\x80",
                b"\xed\xaf\xbf",
                b"\xed\xb0\x80",
                b"\xed\xbe\x80",
                b"\xed\xbf\xbf",
            ],
            false,
        ),
        ("6.21", vec![b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xad\xbf\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf"], false),
        (
            "6.22",
            vec![b"\xef\xbf\xbe", b"\xef\xbf\xbf", b"\xf0\x9f\xbf\xbe", b"\xf1\xaf\xbf\xbf", b"\xf4\x8f\xbf\xbe"],
            true,
        ),
        ("6.23", vec!["\u{fff9}\u{fffa}\u{fffb}\u{fffc}\u{fffd}\u{fffe}\u{ffff}".as_bytes()], true),
    ]
}

// Proves: GW-34, GW-35, GW-96
#[tokio::test]
async fn group_6_utf8() {
    let valid = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    let invalid: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64";
    let (empty_begins, empty_on, empty_ends) = (frame(TEXT_BEGINS, b""), frame(GOES_ON, b""), frame(ENDS, b""));
    let octets = |payload: &[u8]| -> Vec<Vec<u8>> {
        let last = payload.len() - 1;
        let first = |at: usize| {
            if at == 0 {
                TEXT_BEGINS
            } else if at == last {
                ENDS
            } else {
                GOES_ON
            }
        };
        payload.iter().enumerate().map(|(at, byte)| frame(first(at), &[*byte])).collect()
    };
    let not_text = |number, sent: &[Vec<u8>]| ends(number, sent, &[], End::Code(1007));
    let mut cases = vec![
        fine("6.1.1", &[frame(TEXT, b"")], &[(TEXT, b"")]),
        fine("6.1.2", &[empty_begins.clone(), empty_on, empty_ends.clone()], &[(TEXT, b"")]),
        fine(
            "6.1.3",
            &[empty_begins, frame(GOES_ON, b"middle frame payload"), empty_ends],
            &[(TEXT, b"middle frame payload")],
        ),
        fine("6.2.1", &[frame(TEXT, valid)], &[(TEXT, valid)]),
        fine("6.2.2", &[frame(TEXT_BEGINS, &valid[..6]), frame(ENDS, &valid[6..])], &[(TEXT, valid)]),
        fine("6.2.3", &octets(valid), &[(TEXT, valid)]),
        fine("6.2.4", &octets("κόσμε".as_bytes()), &[(TEXT, "κόσμε".as_bytes())]),
        not_text("6.3.1", &[frame(TEXT, invalid)]),
        not_text("6.3.2", &octets(invalid)),
    ];
    for (number, sequences, is_text) in utf8_cases() {
        for bytes in sequences {
            cases.push(match is_text {
                true => fine(number, &[frame(TEXT, bytes)], &[(TEXT, bytes)]),
                false => not_text(number, &[frame(TEXT, bytes)]),
            });
            if bytes.len() > 1 {
                let parts = octets(bytes);
                let case = if is_text { fine(number, &parts, &[(TEXT, bytes)]) } else { not_text(number, &parts) };
                cases.push(case);
            }
        }
    }
    run(&cases).await;
}

/// What can never become text ends the connection at once: the rest of the message is not sent, and not waited for.
// Proves: GW-34, GW-35, GW-96
#[tokio::test]
async fn case_6_4_text_is_refused_at_its_first_impossible_byte() {
    let (good, bad) = ("κόσμε".as_bytes(), b"\xf4\x90\x80\x80");
    let whole = frame(TEXT, &[good, bad, b"edited"].concat());
    // Up to the byte that cannot follow, the second of four, behind a header of six.
    let last_good = 6 + good.len();
    let begin = &whole[..last_good + 2];
    let server = echo_door().await;
    for (number, sent) in [
        ("6.4.1", vec![frame(TEXT_BEGINS, good), frame(GOES_ON, bad)]),
        ("6.4.2", vec![frame(TEXT_BEGINS, &[good, &bad[..1]].concat()), frame(GOES_ON, &bad[1..2])]),
        ("6.4.3", vec![whole[..last_good].to_vec(), begin[last_good..].to_vec()]),
        ("6.4.4", begin.iter().map(|byte| vec![*byte]).collect()),
    ] {
        let mut client = Client::open(server.address(), &[], b"").await.unwrap();
        for piece in sent {
            client.raw(&piece).await;
        }
        finish(&mut client, End::Code(1007), number).await;
    }
    // One byte less may still become text.
    let mut client = Client::open(server.address(), &[], b"").await.unwrap();
    client.raw(&begin[..begin.len() - 1]).await;
    let rest = frame(TEXT, &[good, b"\xf4\x8f\xbf\xbfedited"].concat());
    client.raw(&rest[begin.len() - 1..]).await;
    assert_eq!(client.frame().await.unwrap(), (TEXT, [good, b"\xf4\x8f\xbf\xbfedited"].concat()));
}

// Proves: GW-35, GW-96
#[tokio::test]
async fn group_7_closing() {
    let hello = frame(TEXT, b"Hello World!");
    let back: &[(u8, &[u8])] = &[(TEXT, b"Hello World!")];
    let normal = close(1000, b"");
    let long = vec![b'*'; 256 * 1024];
    let with = |number, sent: &[Vec<u8>], end| ends(number, sent, &[], end);
    let mut cases: Vec<Case> = vec![
        ends("7.1.1", &[hello.clone(), normal.clone()], back, End::Code(1000)),
        with("7.1.2", &[normal.clone(), normal.clone()], End::Code(1000)),
        with("7.1.3", &[normal.clone(), frame(PING, b"")], End::Code(1000)),
        with("7.1.4", &[normal.clone(), hello], End::Code(1000)),
        with("7.1.5", &[frame(TEXT_BEGINS, b"fragment1"), normal.clone(), frame(ENDS, b"fragment2")], End::Code(1000)),
        ends("7.1.6", &[frame(TEXT, &long), normal, frame(PING, b"")], &[(TEXT, &long)], End::Code(1000)),
        with("7.3.1", &[frame(CLOSE, b"")], End::Empty),
        fails("7.3.2", &[frame(CLOSE, b"a")], &[]),
        with("7.3.3", &[close(1000, b"")], End::Code(1000)),
        with("7.3.4", &[close(1000, b"Hello World!")], End::Code(1000)),
        with("7.3.5", &[close(1000, &[b'*'; 123])], End::Code(1000)),
        fails("7.3.6", &[close(1000, &[b'*'; 124])], &[]),
        with("7.5.1", &[close(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited")], End::Code(1007)),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(with("7.7", &[close(code, b"")], End::Code(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999] {
        cases.push(fails("7.9", &[close(code, b"")], &[]));
    }
    for code in [5000, u16::MAX] {
        cases.push(fails("7.13", &[close(code, b"")], &[]));
    }
    run(&cases).await;
}
