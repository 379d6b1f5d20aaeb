//! The console's entry: see the library.

fn main() {
    web::start();
}
