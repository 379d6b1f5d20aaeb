//! What the control plane asked for and the supervisor has not taken yet. Pure.

use std::collections::VecDeque;

use super::Order;

/// Restarts that wait; of more the oldest is forgotten.
const RESTARTS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Orders(VecDeque<Order>);

impl Orders {
    pub(super) fn push(&mut self, order: Order) {
        match order {
            // A snapshot: one that still waits is out of date.
            Order::Assignment(_) => self.0.retain(|it| !matches!(it, Order::Assignment(_))),
            Order::RestartSlot(_) => {
                let restarts = || self.0.iter().filter(|it| matches!(it, Order::RestartSlot(_)));
                if restarts().count() >= RESTARTS {
                    // What is to run is never what makes room.
                    let oldest = self.0.iter().position(|it| matches!(it, Order::RestartSlot(_)));
                    oldest.and_then(|oldest| self.0.remove(oldest));
                }
            }
        }
        self.0.push_back(order);
    }

    pub(super) fn pop(&mut self) -> Option<Order> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proto::pb;

    use super::*;

    #[test]
    fn restarts_never_push_out_what_is_to_run() {
        let mut orders = Orders::default();
        orders.push(Order::Assignment(pb::Assignment { generation: 1, ..Default::default() }));
        orders.push(Order::Assignment(pb::Assignment { generation: 2, ..Default::default() }));
        for slot in 1..=100 {
            orders.push(Order::RestartSlot(pb::RestartSlot { slot, ..Default::default() }));
        }
        let taken: Vec<Order> = std::iter::from_fn(|| orders.pop()).collect();
        assert_eq!(taken.len(), 1 + RESTARTS);
        assert!(matches!(&taken[0], Order::Assignment(it) if it.generation == 2));
        assert!(matches!(taken.last(), Some(Order::RestartSlot(it)) if it.slot == 100));
        assert!(orders.is_empty());
    }
}
