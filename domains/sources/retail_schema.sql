-- Tables of the retail domain (SQLite). Made by domains/sources/convert_retail.py; do not edit by hand.
-- products, items, orders, order_items: a sample of the tau2-bench retail database (MIT, see SOURCES.md), names left out.
-- INVENTED, because no public data exist: stores, stock (40 products x 12 stores, a sample of 1,600 stores), loyalty.
CREATE TABLE stores (
    store_id TEXT PRIMARY KEY,
    city TEXT NOT NULL,
    state TEXT NOT NULL,
    opens TEXT NOT NULL,
    closes TEXT NOT NULL
);
CREATE TABLE products (
    product_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE items (
    item_id TEXT PRIMARY KEY,
    product_id TEXT NOT NULL REFERENCES products,
    options TEXT NOT NULL,
    price REAL NOT NULL,
    available INTEGER NOT NULL
);
CREATE TABLE stock (
    store_id TEXT NOT NULL REFERENCES stores,
    product_id TEXT NOT NULL REFERENCES products,
    quantity INTEGER NOT NULL CHECK (quantity >= 0),
    PRIMARY KEY (store_id, product_id)
);
CREATE TABLE loyalty (
    member_id TEXT PRIMARY KEY,
    level TEXT NOT NULL,
    points INTEGER NOT NULL,
    expiring_points INTEGER NOT NULL,
    expires_on TEXT NOT NULL
);
CREATE TABLE orders (
    order_id TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    tracking TEXT,
    total REAL NOT NULL
);
CREATE TABLE order_items (
    order_id TEXT NOT NULL REFERENCES orders,
    item_id TEXT NOT NULL,
    product_id TEXT NOT NULL REFERENCES products,
    price REAL NOT NULL
);
CREATE TABLE reservations (
    reservation_id TEXT PRIMARY KEY,
    store_id TEXT NOT NULL REFERENCES stores,
    product_id TEXT NOT NULL REFERENCES products,
    member_id TEXT NOT NULL REFERENCES loyalty
);
