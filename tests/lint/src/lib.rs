//! One line for each entry of `core/clippy.toml`.

pub type Sins = (
    std::time::Instant,
    std::time::SystemTime,
    std::collections::HashMap<u8, u8>,
    std::collections::HashSet<u8>,
    std::hash::RandomState,
    std::net::UdpSocket,
    std::net::TcpStream,
    std::net::TcpListener,
    std::fs::File,
    std::fs::OpenOptions,
    std::process::Command,
    std::thread::JoinHandle<()>,
);

pub type More = rand::rngs::SysRng;

pub fn commit_them() {
    std::thread::spawn(|| ());
    std::thread::sleep(std::time::Duration::ZERO);
    let _ = std::env::var("");
    let _ = std::env::var_os("");
    let _ = std::env::args();
    let _ = std::fs::read("");
    let _ = std::fs::read_to_string("");
    let _ = std::fs::write("", "");
    let _ = std::io::stdin();
    let _ = std::io::stdout();
    let _ = std::io::stderr();
    let _ = std::process::id();
    println!();
    eprintln!();
    print!("");
    eprint!("");
    dbg!();
    std::process::exit(0)
}
