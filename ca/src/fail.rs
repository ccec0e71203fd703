//! Points at which a test lets its process die, as the power would: after a write and before the next.
//!
//! Outside tests there is nothing here.

#[cfg(not(test))]
#[inline(always)]
pub(crate) fn point(_: &str) {}

#[cfg(test)]
static ARMED: std::sync::Mutex<Option<String>> = std::sync::Mutex::new(None);

/// Dies here, if it was told to.
#[cfg(test)]
pub(crate) fn point(name: &str) {
    let armed = ARMED.lock().unwrap();
    if armed.as_deref() == Some(name) {
        std::process::abort();
    }
}

/// Has this process die at the point `name`, from now on.
#[cfg(test)]
pub(crate) fn arm(name: &str) {
    *ARMED.lock().unwrap() = Some(name.to_owned());
}
