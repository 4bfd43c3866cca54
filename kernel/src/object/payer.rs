//! Whose memory it is that a process gets from somebody else, and with what it goes: see the head of
//! [`super::mapping`].

use alloc::sync::Arc;

use super::account::Account;
use super::capability::Node;
use super::process::Process;
use crate::arch::Arch;

/// Who maps memory that is nobody's object, and pays for it.
pub struct Payer<'a, A: Arch> {
    /// Whose account.
    pub account: &'a Arc<Account>,
    /// The capability to the process by which a stranger manages it; none of the process itself, nor of who made it,
    /// with whom it ends anyway.
    pub by: Option<&'a Arc<Node<A>>>,
}

impl<A: Arch> Clone for Payer<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Arch> Copy for Payer<'_, A> {}

impl<'a, A: Arch> Payer<'a, A> {
    /// The process itself, or who made it.
    pub fn own(account: &'a Arc<Account>) -> Payer<'a, A> {
        Payer { account, by: None }
    }

    /// Whoever has `node`, a capability to `process`.
    pub fn by(account: &'a Arc<Account>, node: &'a Arc<Node<A>>, process: &Process<A>) -> Payer<'a, A> {
        let own = node.is_original() || Arc::ptr_eq(account, &process.account);
        Payer { account, by: (!own).then_some(node) }
    }
}
