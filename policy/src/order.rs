//! Where a resource stands among the others of its set.

use std::sync::Arc;

/// Documents of files in their order, then the objects of an API server by name, then what the
/// configuration declares. Nothing depends on when an object arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// A document of a file: its place among all of them.
    Document(u32),
    /// An object: its [`file`](crate::live::ObjectKey::file).
    Object(Arc<str>),
    /// Declared under `workloads:`: its place there.
    Declared(u32),
}

/// Something that stands somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Placed<T> {
    pub(crate) order: Order,
    pub(crate) item: T,
}

impl<T> Placed<T> {
    pub(crate) fn new(order: Order, item: T) -> Self {
        Self { order, item }
    }
}

/// Puts one more into a list that is in order, behind those of the same place.
pub(crate) fn put<T>(list: &mut Vec<Placed<T>>, one: Placed<T>) {
    let place = list.partition_point(|other| other.order <= one.order);
    list.insert(place, one);
}

/// Takes all of one place out of a list that is in order.
pub(crate) fn take<T>(list: &mut Vec<Placed<T>>, order: &Order) {
    let from = list.partition_point(|other| other.order < *order);
    let to = list.partition_point(|other| other.order <= *order);
    list.drain(from..to.max(from));
}
