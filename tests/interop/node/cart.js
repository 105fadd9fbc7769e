// A shopping cart, event sourced, on the Node support library as its authors published it: a user function that owes
// nothing to this project. It listens on HOST and PORT (0: a free one); the library, at 0.0.3, reads neither.
"use strict";
const path = require("path");
const { EventSourced } = require("cloudstate");

// The library looks for google/protobuf/*.proto beside a protoc that its install script downloads; protobufjs has them.
const protobufjs = path.dirname(require.resolve("protobufjs/package.json", { paths: [require.resolve("cloudstate")] }));

const cart = new EventSourced(
  ["shoppingcart/shoppingcart.proto", "shoppingcart/persistence/domain.proto"],
  "com.example.shoppingcart.ShoppingCart",
  { persistenceId: "shopping-cart", snapshotEvery: 5, includeDirs: [".", protobufjs] },
);

const persisted = (name) => cart.lookupType("com.example.shoppingcart.persistence." + name);
const Cart = persisted("Cart");
const ItemAdded = persisted("ItemAdded");
const ItemRemoved = persisted("ItemRemoved");

function addItem(command, state, context) {
  if (command.quantity <= 0) {
    context.fail("Cannot add negative quantity to item " + command.productId);
  }
  const { productId, name, quantity } = command;
  context.emit(ItemAdded.create({ item: { productId, name, quantity } }));
  return {};
}

function removeItem(command, state, context) {
  if (!state.items.some((item) => item.productId === command.productId)) {
    context.fail("Item " + command.productId + " not in cart");
  }
  context.emit(ItemRemoved.create({ productId: command.productId }));
  return {};
}

function getCart(command, state) {
  return { items: state.items };
}

function itemAdded({ item }, state) {
  const present = state.items.find((other) => other.productId === item.productId);
  if (present) {
    present.quantity += item.quantity;
  } else {
    state.items.push(item);
  }
  return state;
}

function itemRemoved({ productId }, state) {
  state.items = state.items.filter((item) => item.productId !== productId);
  return state;
}

cart.setInitial(() => Cart.create({ items: [] }));
cart.setBehavior(() => ({
  commandHandlers: { AddItem: addItem, RemoveItem: removeItem, GetCart: getCart },
  eventHandlers: { ItemAdded: itemAdded, ItemRemoved: itemRemoved },
}));
cart.start({ bindAddress: process.env.HOST || "127.0.0.1", bindPort: Number(process.env.PORT || 8080) });
