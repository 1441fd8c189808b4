#include "value/value.h"

#include "value/evaluate.h"
#include "value/graph.h"

namespace graingrad {

Graph& Value::graph() const {
  if (graph_ == nullptr) throw GraphError("an empty Value");
  return *graph_;
}

const Spec& Value::spec() const { return graph().spec(graph().check(*this)); }

double Value::item() const {
  if (shape().size() != 1) throw ShapeError("item: of " + spec().to_string() + ", which has not one element");
  return evaluate({*this})[0][0];
}

}  // namespace graingrad
