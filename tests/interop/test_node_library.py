import uvloop
from .node_cart import NodeCart, set_up
def test_x():
    set_up()
    cart = NodeCart()
    cart.start()
    try:
        print(uvloop.run(cart.discover()).service_info)
        print(cart.output)
        p = cart.port
        cart.restart()
        assert cart.port == p
        print(uvloop.run(cart.discover()).service_info)
    finally:
        cart.close()
