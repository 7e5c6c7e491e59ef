//! A network namespace with two links to ours, one of which can be made to swallow all that is sent over it.

use std::net::Ipv4Addr;
use std::process::Command;

/// Dropping it removes the namespace and its links.
pub struct Namespace {
    name: String,
    /// The third byte of the addresses.
    net: u8,
}

impl Namespace {
    /// Makes one. `None` without root, or without `ip`, or where the kernel has no namespaces.
    ///
    /// # Panics
    ///
    /// If a link cannot be made in it.
    #[must_use]
    pub fn new() -> Option<Self> {
        let id = std::process::id();
        let namespace = Self {
            name: format!("hsmd-{id}"),
            net: u8::try_from(id % 250).expect("below 250"),
        };
        let made = Command::new("ip")
            .args(["netns", "add", &namespace.name])
            .output();
        made.ok()?.status.success().then_some(())?;
        let own = namespace.name.as_str();
        for link in [0, 4] {
            let (outside, inside) = (format!("he{id}-{link}"), format!("in{link}"));
            let (ours, theirs) = (namespace.address(link + 1), namespace.address(link + 2));
            let (ours, theirs) = (format!("{ours}/30"), format!("{theirs}/30"));
            ip(&[
                "link", "add", &outside, "type", "veth", "peer", "name", &inside, "netns", own,
            ]);
            ip(&["address", "add", &ours, "dev", &outside]);
            ip(&["link", "set", &outside, "up"]);
            ip(&["-n", own, "address", "add", &theirs, "dev", &inside]);
            ip(&["-n", own, "link", "set", &inside, "up"]);
        }
        ip(&["-n", own, "link", "set", "lo", "up"]);
        Some(namespace)
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Our address at the end of the link that can be cut.
    #[must_use]
    pub fn outside(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The address inside, at the end of the link that always works.
    #[must_use]
    pub fn inside(&self) -> Ipv4Addr {
        self.address(6)
    }

    /// The address inside, at the end of the link that can be cut.
    #[must_use]
    pub fn inside_cuttable(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// From now on what is sent from within to [`Self::outside`] gets lost without a word: it goes to an Ethernet
    /// address that nobody has.
    pub fn cut(&self) {
        self.neighbour(
            "replace",
            &["lladdr", "02:00:00:00:00:01", "nud", "permanent"],
        );
    }

    /// Ends that.
    pub fn heal(&self) {
        self.neighbour("del", &[]);
    }

    fn neighbour(&self, verb: &str, more: &[&str]) {
        let address = self.outside().to_string();
        let neighbour = ["-n", &self.name, "neigh", verb, &address, "dev", "in0"];
        ip(&[&neighbour[..], more].concat());
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.net, last)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its links go with it.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .output();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output = output.expect("ip runs");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
