//! The bytes in flight: of one request, of one client, of all; and text of clients in messages.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use ocad_server::budget::{Bounds, Budget};
use ocad_server::error::Error;
use ocad_server::text::{line, shown};

const BOUNDS: Bounds = Bounds { total: 1_000_000, client: 600_000, connections: 2 };

#[test]
fn what_is_taken_is_given_back() {
    let budget = Budget::new(BOUNDS);
    let ticket = budget.client([10, 0, 0, 1].into()).ticket(100).unwrap();
    let begun = budget.used();
    assert!(begun > 100, "a request takes more than its head");
    ticket.take(1000).unwrap();
    ticket.give(400);
    assert_eq!((budget.used(), ticket.held()), (begun + 600, begun + 600));
    ticket.answer(200_000).unwrap();
    assert!((200_000..210_000).contains(&budget.used()), "only the answer is left");
    ticket.answer(10).unwrap();
    assert!(budget.used() < 10_000);
    ticket.give(usize::MAX);
    drop(ticket);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_client_leaves_something_for_others() {
    let budget = Budget::new(BOUNDS);
    let greedy = budget.client([10, 0, 0, 1].into());
    let (first, second) = (greedy.ticket(0).unwrap(), greedy.ticket(0).unwrap());
    first.take(500_000).unwrap();
    let refusal = second.take(200_000).unwrap_err();
    assert!(matches!(&refusal, Error::Overloaded(text) if text.contains("this client")), "{refusal}");
    assert!(matches!(second.take(700_000), Err(Error::TooLarge(_))), "what never fits is not asked for again");
    let other = budget.client([10, 0, 0, 2].into()).ticket(0).unwrap();
    other.take(400_000).unwrap();
    let refusal = other.take(150_000).unwrap_err();
    assert!(matches!(&refusal, Error::Overloaded(text) if text.contains("in flight")), "{refusal}");
    drop(first);
    other.take(150_000).unwrap();
    drop((second, other));
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_client_is_an_address_or_a_network_of_version_6() {
    let budget = Budget::new(BOUNDS);
    let same = |a: &str, b: &str| {
        Arc::ptr_eq(&budget.client(a.parse().unwrap()), &budget.client(a.parse().unwrap()))
            && Arc::ptr_eq(&budget.client(a.parse().unwrap()), &budget.client(b.parse().unwrap()))
    };
    let kept: Vec<_> =
        ["10.0.0.1", "2001:db8::1"].map(|address| budget.client(address.parse().unwrap())).into_iter().collect();
    assert!(same("10.0.0.1", "::ffff:10.0.0.1"));
    assert!(same("2001:db8::1", "2001:db8::ffff:1"));
    assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
    assert!(!same("10.0.0.1", "10.0.0.2"));
    let seats = [kept[0].seat(0), kept[0].seat(0), kept[0].seat(0), kept[0].seat(1)];
    assert_eq!(seats.each_ref().map(Option::is_some), [true, true, false, true], "two a socket");
    drop(seats);
    assert!(kept[0].seat(0).is_some());
}

#[test]
fn text_is_cut_and_escaped() {
    assert_eq!(shown("rows-é"), "rows-é");
    assert_eq!(shown("a\u{1b}[2J\nb\u{202e}"), "a\\u{1b}[2J\\nb\\u{202e}");
    for text in ["x".repeat(1 << 20), "é".repeat(1 << 20), "\n".repeat(1 << 20)] {
        assert!(shown(&text).len() <= 260 && shown(&text).ends_with('…'));
        assert!(line(&text).len() <= 2060);
    }
}
